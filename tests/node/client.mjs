// One scenario against a server that echoes: `node client.mjs URL SCENARIO` prints what happened as one line of JSON.
// The expectations stand in the Python test; here is only what this client does and sees.

import WebSocket from "ws";

const [url, scenario] = process.argv.slice(2);
const LIMIT = 15000;

// A client that collects what it hears; `next(kind)` awaits the next event of that kind.
function open(options = {}) {
  const socket = new WebSocket(url, options);
  const heard = [], waiting = [];
  const note = (kind, ...details) => {
    heard.push([kind, ...details]);
    for (const wake of waiting.splice(0)) wake();
  };
  socket.on("open", () => note("open", socket.protocol, socket.extensions));
  socket.on("message", (data, binary) => note("message", data, binary));
  socket.on("ping", (data) => note("ping", data.toString()));
  socket.on("pong", (data) => note("pong", data.toString()));
  socket.on("close", (code, reason) => note("close", code, reason.toString()));
  socket.on("error", (error) => note("error", error.message));
  socket.on("unexpected-response", (request, response) => note("refused", response.statusCode));
  let at = 0;
  const next = async (kind) => {
    for (;;) {
      while (at < heard.length) {
        const event = heard[at++];
        if (event[0] === kind) return event.slice(1);
        if (event[0] === "error" || event[0] === "close") throw new Error(`${event} while waiting for ${kind}`);
      }
      await new Promise((wake) => waiting.push(wake));
    }
  };
  return {socket, next};
}

const scenarios = {
  async echo() {
    const {socket, next} = open();
    await next("open");
    const got = [];
    for (const data of ["", "hello", "tschüß ✓ 🚢", Buffer.alloc(0), Buffer.from([0, 255, 1, 254])]) {
      socket.send(data);
      const [answer, binary] = await next("message");
      got.push([binary, answer.toString(binary ? "hex" : "utf8")]);
    }
    socket.close(1000);
    return {got, close: await next("close")};
  },

  async fragments() {
    const {socket, next} = open();
    await next("open");
    const parts = ["one ", "two ✓ ", "", "three"];
    parts.forEach((part, n) => socket.send(part, {fin: n === parts.length - 1}));
    const [text, textBinary] = await next("message");
    for (let n = 0; n < 100; n++) {
      socket.send(Buffer.from([n]), {binary: true, fin: n === 99});
      if (n % 10 === 5) socket.ping("between " + n); // a control frame between fragments (RFC 6455 section 5.4)
    }
    const [bytes, bytesBinary] = await next("message");
    socket.close();
    return {text: [textBinary, text.toString()], bytes: [bytesBinary, bytes.toString("hex")]};
  },

  async pings() {
    const {socket, next} = open();
    await next("open");
    const pongs = [];
    for (const data of ["", "are you there?", "x".repeat(125)]) {
      socket.ping(data);
      pongs.push((await next("pong"))[0]);
    }
    socket.send("ping me");
    const [ping] = await next("ping");
    socket.close();
    return {pongs, ping};
  },

  async closes() {
    const got = [];
    for (const [code, reason] of [[1000, ""], [1001, "going"], [3000, "a library"], [4999, "ü".repeat(61)]]) {
      const {socket, next} = open();
      await next("open");
      socket.close(code, reason);
      got.push(await next("close"));
    }
    for (const command of ["close me 4321 because", "close me 1000 "]) {
      const {socket, next} = open();
      await next("open");
      socket.send(command);
      got.push(await next("close"));
    }
    return {got};
  },

  async large() {
    const {socket, next} = open({maxPayload: 1 << 21});
    await next("open");
    const got = [];
    for (const size of [125, 126, 65535, 65536, 1 << 20]) {
      const data = Buffer.alloc(size, "mooring ");
      socket.send(data);
      const [answer] = await next("message");
      got.push([answer.length, answer.equals(data)]);
    }
    socket.send(Buffer.alloc((1 << 20) + 1));
    return {got, close: await next("close")};
  },

  async many() {
    const all = await Promise.all(Array.from({length: 200}, async (_, n) => {
      const client = open();
      await client.next("open");
      for (let m = 0; m < 5; m++) client.socket.send(`${n} ${m}`);
      return client;
    }));
    const wrong = [];
    await Promise.all(all.map(async ({socket, next}, n) => {
      for (let m = 0; m < 5; m++) {
        const [answer] = await next("message");
        if (answer.toString() !== `${n} ${m}`) wrong.push([n, m, answer.toString()]);
      }
      socket.close();
      await next("close");
    }));
    return {clients: all.length, wrong};
  },

  async handshake() {
    // permessage-deflate is offered by default and not taken; nor is a sub-protocol that nobody speaks
    const plain = open();
    const [, extensions] = await plain.next("open");
    plain.socket.close();
    const foreign = open({origin: "https://elsewhere.example"});
    const refused = await foreign.next("refused");
    const own = open({origin: url.replace("ws:", "http:").replace(/\/$/, "")});
    await own.next("open");
    own.socket.close();
    return {extensions, refused};
  },
};

const limit = setTimeout(() => { console.error(`${scenario} takes too long`); process.exit(2); }, LIMIT);
console.log(JSON.stringify(await scenarios[scenario]()));
clearTimeout(limit);
