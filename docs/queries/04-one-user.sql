-- What one user did last: every event in order, with the name of the content.
SELECT ets, eid, edata_type AS type, edata_pageid AS page, JSONExtractString(content, 'name') AS content_name
FROM events
WHERE actor_id = {user:String}
ORDER BY ets DESC, mid
LIMIT 8
