// node express-gateway.js PACKAGES: the gateway, configured in the working directory, where it wants its models too.
"use strict";
const { cpSync } = require("node:fs");
const [packages] = process.argv.slice(2);
cpSync(`${packages}/node_modules/express-gateway/lib/config/models`, "models", { recursive: true });
require("node:module").createRequire(`${packages}/`)("express-gateway")().load(process.cwd()).run();
