"""A fleet of devices that do not exist: they register, report and obey as firmware in the field does."""
