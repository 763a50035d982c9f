import { createServer } from "node:http";

const server = createServer((request, response) => {
  response.setHeader("Content-Type", "text/html; charset=utf-8");
  response.end(`<!doctype html><title>Node</title><h1>Hello</h1><p>You asked for ${encodeURI(request.url)}\n`);
});

server.listen(process.env.PORT, process.env.HOST);
process.once("SIGTERM", () => server.close());
