// node fastify.js PACKAGES PORT ORIGIN: Fastify with its proxy and nothing else.
"use strict";
const [packages, port, origin] = process.argv.slice(2);
const load = require("node:module").createRequire(`${packages}/`);
const server = load("fastify")({ logger: false });
server.register(load("@fastify/http-proxy"), { upstream: `http://127.0.0.1:${origin}` });
server.listen({ host: "127.0.0.1", port: Number(port), backlog: 4096 });
