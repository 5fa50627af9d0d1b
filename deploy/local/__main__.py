"""`python -m deploy.local`: see :mod:`deploy.local.launcher`."""

import sys

from deploy.local.launcher import main

sys.exit(main())
