/* An app with the real client: one event of each kind, then waits until all are sent.

   Takes a JSON object on stdin: {host, token, channel, did, uid, batchsize, timeoutMs}. Prints one on stdout:
   {sent: [EVENT, ...], requests: [{status, mids}, ...]}, status null where there was no reply; on stderr a line as each
   request ends. */

const {$t} = require('@project-sunbird/telemetry-sdk');

const settings = JSON.parse(require('fs').readFileSync(0, 'utf8'));

// stdout is for the result.
for (const name of ['log', 'info', 'warn', 'error']) console[name] = () => {};

const requests = [];
const pending = new Map(); // what no reply has confirmed
const sent = new Map();
const send = globalThis.fetch;
globalThis.fetch = async (url, options) => {
  const events = JSON.parse(options.body).events;
  const request = {status: null, mids: events.map((event) => event.mid)};
  requests.push(request);
  events.forEach((event) => pending.set(event.mid, event));
  try {
    const response = await send(url, options);
    request.status = response.status;
    if (response.ok) events.forEach((event) => { sent.set(event.mid, event); pending.delete(event.mid); });
    return response;
  } finally {
    process.stderr.write(`${request.status}\n`);
  }
};

async function main() {
  $t.initialize({
    pdata: {id: 'in.test.app', ver: '2.1', pid: 'test'},
    env: 'library',
    channel: settings.channel,
    did: settings.did,
    uid: settings.uid,
    sid: 'session-1',
    authtoken: settings.token,
    host: settings.host,
    endpoint: '/api/data/v1/telemetry',
    batchsize: settings.batchsize,
    tags: ['one', 'two'],
    cdata: [{type: 'class', id: 'class-7'}],
  });
  const target = {id: 'q1', ver: '1', type: 'question'};
  const plugin = {id: 'org.plugin', ver: '1.0'};
  await $t.start({}, 'do_1', '1.0', {type: 'content', mode: 'play', pageid: 'first'});
  $t.impression({type: 'view', pageid: 'library', uri: '/library', subtype: 'paginate', visits: [{objid: 'do_2', objtype: 'Content', index: 1}]});
  $t.interact({type: 'TOUCH', id: 'play', pageid: 'library', subtype: 'tap', extra: {pos: {x: 1, y: 2}}});
  $t.assess({item: {id: 'q1', maxscore: 1, exlength: 5, params: [], uri: '', desc: '', title: 'Größe', mmc: [], mc: []}, pass: 'Yes', score: 1, resvalues: [{answer: '4'}], duration: 2.5, index: 1});
  $t.response({target, type: 'CHOOSE', values: [{answer: '4'}]});
  $t.interrupt({type: 'RESUME', pageid: 'library'});
  $t.feedback({rating: 4, commentid: '', commenttxt: 'good'});
  $t.share({items: [{id: 'do_1', type: 'CONTENT', ver: '1', params: [{transfers: 1}], origin: {id: 'o', type: 'DEVICE'}, to: {id: 't', type: 'DEVICE'}}], dir: 'Out', type: 'File'});
  $t.audit({props: ['name'], state: 'Live', prevstate: 'Draft'});
  $t.error({err: 'E1', errtype: 'SYSTEM', stacktrace: 'at here', pageid: 'library', plugin});
  $t.heartbeat({any: 'thing'});
  $t.log({type: 'api_access', level: 'INFO', message: 'asked', params: [{url: '/x'}]});
  $t.search({type: 'content', query: 'maths', filters: {grade: ['7']}, sort: {}, size: 3, topn: [{identifier: 'do_3'}], correlationid: ''});
  $t.metrics({system: 'player', subsystem: 'cache', metrics: [{metric: 'hits', value: 3}]});
  $t.exdata({type: 'partnerdata', data: 'opaque'});
  $t.summary({type: 'session', mode: 'play', starttime: 1, endtime: 2, timespent: 1, pageviews: 1, interactions: 1, extra: [{id: 'progress', value: '50'}]});
  $t.end({type: 'content', mode: 'play', pageid: 'last', summary: [{progress: 100}]});
  $t.syncEvents();

  const deadline = Date.now() + settings.timeoutMs;
  while ((pending.size || !sent.size) && Date.now() < deadline) await new Promise((done) => setTimeout(done, 20));
  process.stdout.write(JSON.stringify({sent: [...sent.values()], requests}));
  process.exit(pending.size ? 1 : 0);
}

main();
