// Node's WebSocket client: text, binary, a ping, a clean end; says what it saw as JSON.
//
//   node ws_client.mjs MODULES URL CA
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const [modules, url, authority] = process.argv.slice(2);
const WebSocket = createRequire(`${modules}/`)('ws');
const socket = new WebSocket(url, {
  ca: authority ? readFileSync(authority) : undefined,
  perMessageDeflate: true,
  servername: 'site.test',
});
const binary = Buffer.alloc(1 << 20, 7);
const seen = { texts: 0, bytes: 0, pongs: 0 };

socket.on('error', (error) => {
  console.log(JSON.stringify({ error: String(error) }));
  process.exit(1);
});
socket.on('open', () => {
  socket.send('hello');
  socket.send(binary);
  socket.ping();
});
socket.on('pong', () => { seen.pongs += 1; finish(); });
socket.on('message', (data, isBinary) => {
  if (isBinary) seen.bytes += data.length;
  else seen.texts += data.toString() === 'hello';
  finish();
});
socket.on('close', (code) => {
  console.log(JSON.stringify({ ...seen, code, extensions: socket.extensions }));
});

function finish() {
  if (seen.texts === 1 && seen.bytes === binary.length && seen.pongs === 1) socket.close(1000);
}
setTimeout(() => { console.log(JSON.stringify({ late: seen })); process.exit(1); }, 20000).unref();
