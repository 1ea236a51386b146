// One scenario of a client of the Centrifuge protocol that nobody here wrote: `node centrifuge.mjs URL TRANSPORT PACKAGE
// ENCODING SCENARIO [TOKENS]` prints what it has seen, a line of JSON. What the server is to do meanwhile it asks it by `rpc`; the
// expectations stand in the Python test.

import {createRequire} from "node:module";
import EventSource from "eventsource";
import WebSocket from "ws";

const [url, transport, name, encoding, scenario, tokens = "[]"] = process.argv.slice(2);
const require = createRequire(import.meta.url);
const {Centrifuge} = require(encoding === "json" ? name : `${name}/build/protobuf`);
const LIMIT = 15000;
setTimeout(() => { console.error("too long"); process.exit(3); }, LIMIT).unref();

const out = (value) => encoding === "json" ? value : new TextEncoder().encode(JSON.stringify(value));
const back = (value) => encoding === "json" || value === undefined ? value : JSON.parse(new TextDecoder().decode(value));

// What an emitter tells, in order; `next(kind)` awaits the next of a kind, and lets others pass.
function seen(emitter, kinds) {
  const events = [], waiting = [];
  for (const kind of kinds) {
    emitter.on(kind, (context) => {
      events.push([kind, context]);
      for (const wake of waiting.splice(0)) wake();
    });
  }
  let at = 0;
  return async (...wanted) => {
    for (;;) {
      while (at < events.length) {
        const [kind, context] = events[at++];
        if (wanted.includes(kind)) return context;
      }
      await new Promise((wake) => waiting.push(wake));
    }
  };
}

const CLIENT = ["connecting", "connected", "disconnected", "error", "message", "publication", "join", "leave",
  "subscribed", "subscribing", "unsubscribed"];
const SUBSCRIPTION = ["subscribing", "subscribed", "unsubscribed", "publication", "join", "leave", "error"];

function open(options = {}) {
  const endpoint = transport === "websocket" ? url : `${url}/${transport}`;
  const client = new Centrifuge([{transport, endpoint}], {
    websocket: WebSocket, eventsource: EventSource, fetch, readableStream: ReadableStream,
    emulationEndpoint: `${url}/emulation`, maxReconnectDelay: 200, minReconnectDelay: 50, ...options,
  });
  const next = seen(client, CLIENT);
  const subscribe = (channel, options = {}) => {
    const subscription = client.newSubscription(channel, options);
    const next = seen(subscription, SUBSCRIPTION);
    subscription.subscribe();
    return {subscription, next};
  };
  // The server does something; what cuts the connection has no answer.
  const ask = (what) => client.rpc("do", out(what)).catch(() => null);
  client.connect();
  return {client, next, subscribe, ask};
}

const data = async (next, count) => {
  const got = [];
  while (got.length < count) got.push(back((await next("publication")).data));
  return got;
};
const failed = (promise) => promise.then(() => null, (error) => [error.code, error.temporary ?? false]);

const scenarios = {
  async talk() {
    const {client, next, subscribe} = open({data: out({user: "ann"})});
    const {subscription: news, next: told} = subscribe("news", {joinLeave: true});  // in the same frame as connect
    const connected = await next("connected");
    const subscribed = await told("subscribed");
    const joined = (await told("join")).info.user;
    for (const n of [1, 2, 3]) await news.publish(out({n, text: "tschüß ✓"}));
    const published = await data(told, 3);
    const presence = await news.presence(), stats = await news.presenceStats();
    const history = await news.history({limit: 2, since: {offset: 1, epoch: "one"}});
    const echo = back((await client.rpc("echo", out([1, null]))).data);
    client.send(out({said: 1}));
    const errors = [
      await failed(client.rpc("nothing", out(1))),
      await failed(client.publish("forbidden", out(1))),
    ];
    const forbidden = subscribe("forbidden");
    errors.push([(await forbidden.next("unsubscribed")).code]);
    news.unsubscribe();
    await client.rpc("echo", out(0));
    const after = await client.presenceStats("news");
    client.disconnect();
    return {
      client: connected.client, hello: back(connected.data), recoverable: subscribed.recoverable, joined, published,
      users: Object.values(presence.clients).map((info) => info.user), stats: [stats.numClients, stats.numUsers],
      history: [Number(history.offset), history.epoch, history.publications.map((one) => Number(one.offset))], echo, errors,
      after: after.numClients,
    };
  },

  async recover() {
    const {client, ask, subscribe} = open();
    const {next} = subscribe("news");
    await next("subscribed");
    await ask({publish: [["news", 1]]});
    const first = await data(next, 1);
    ask({cut: true, publish: [["news", 2], ["news", 3]]});
    const again = await next("subscribed");
    await ask({publish: [["news", 4]]});
    const missed = await data(next, 3);
    ask({cut: true, publish: [["news", 5], ["news", 6]], trim: ["news", 1]});
    const trimmed = await next("subscribed");
    client.disconnect();
    return {first, again: [again.wasRecovering, again.recovered], missed, trimmed: [trimmed.wasRecovering, trimmed.recovered]};
  },

  async gap() {
    const {client, ask, subscribe} = open();
    const {next} = subscribe("news");
    await next("subscribed");
    await ask({publish: [["news", 1]]});
    ask({lose: [["news", 2]], publish: [["news", 3]]});
    const why = await (async () => { for (;;) { const one = await next("subscribing"); if (one.code >= 2000) return one; } })();
    const again = await next("subscribed");
    const got = await data(next, 2);
    client.disconnect();
    return {code: why.code, recovered: again.recovered, got};
  },

  async server() {
    const {client, next, ask} = open();
    const first = (await next("subscribed")).channel;
    await ask({publish: [["mine", 1]]});
    const got = [back((await next("publication")).data)];
    ask({cut: true, publish: [["mine", 2]]});
    const again = await next("subscribed");
    got.push(back((await next("publication")).data));
    await ask({subscribe: "more", publish: [["more", 3]]});
    const more = (await next("subscribed")).channel;
    got.push(back((await next("publication")).data));
    await ask({unsubscribe: ["more", 2000]});
    const gone = (await next("unsubscribed")).channel;
    await ask({message: {to: "you"}});
    const message = back((await next("message")).data);
    client.disconnect();
    return {first, got, recovered: again.recovered, more, gone, message};
  },

  async ends() {
    const {client, next, ask} = open();
    await next("connected");
    ask({end: [3001, "the server stops"]});
    const passing = await (async () => { for (;;) { const one = await next("connecting"); if (one.code) return one; } })();
    await next("connected");
    ask({end: [4999, "17"]});
    const last = await next("disconnected");
    const refused = open({data: out({refuse: 101})});
    const no = await refused.next("disconnected");
    const ended = open({data: out({end: 3503})});
    const end = await ended.next("disconnected");
    const later = open({data: out({refuse: 100, temporary: true})});
    const error = await later.next("error");
    await later.next("error");
    later.client.disconnect();
    client.disconnect();
    return {
      passing: [passing.code, passing.reason], last: [last.code, last.reason], no: no.code, end: [end.code, end.reason],
      later: error.error.code,
    };
  },

  async tokens() {
    const [old, connection, mine] = JSON.parse(tokens);
    const rounds = {"": 0, mine: 0};
    let enough;
    const refreshed = new Promise((resolve) => enough = resolve);
    const token = (context) => {
      rounds[context?.channel ?? ""] += 1;
      if (rounds[""] >= 3 && rounds.mine >= 3) enough();
      return Promise.resolve(context?.channel ? mine : connection);
    };
    const {client, next, subscribe} = open({token: old, getToken: token});
    const connected = await next("connected");
    const {subscription, next: told} = subscribe("mine", {getToken: token});
    await told("subscribed");
    await refreshed;
    const presence = await subscription.presence();
    const [me] = Object.values(presence.clients);
    const others = await subscribe("others", {token: mine}).next("unsubscribed");
    client.disconnect();
    return {hello: back(connected.data), info: [me.user, back(me.connInfo), back(me.chanInfo)], others: others.code};
  },

  async pings() {
    const {client, next, ask} = open({maxServerPingDelay: 1500});
    await next("connected");
    const pongs = back((await client.rpc("do", out({pongs: 4}))).data);
    const state = client.state;
    client.disconnect();
    return {pongs, state};
  },

  async noJson() {
    const {client, next, ask, subscribe} = open();
    const {next: told} = subscribe("news");
    await told("subscribed");
    ask({raw: ["news", "ff7b"]});
    if (encoding === "json") return {code: (await next("disconnected")).code};
    const got = (await told("publication")).data;
    client.disconnect();
    return {got: Buffer.from(got).toString("hex")};
  },
};

console.log(JSON.stringify(await scenarios[scenario]()));
process.exit(0);
