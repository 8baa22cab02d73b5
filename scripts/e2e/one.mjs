// An origin that says its name: node one.mjs PORT NAME. Node sends head and body of such an answer
// in one piece, so a `kill -9` leaves nothing half said, which no proxy could put right.
import { createServer } from "node:http";

const [port, name] = process.argv.slice(2);
const body = JSON.stringify({ server: name, padding: "x".repeat(200) });
createServer({ keepAliveTimeout: 600_000 }, (_, response) => {
  response.writeHead(200, {
    "Content-Type": "application/json",
    "Content-Length": Buffer.byteLength(body),
    "X-Origin": name,
  });
  response.end(body);
}).listen(Number(port), "127.0.0.1");
