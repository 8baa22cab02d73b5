// A Node origin for the end-to-end run: bodies, chunks, events, and streams of any length.
//
//   node origin.mjs HOST PORT
//
// Node's HTTP server is one of those that Weir meets in the field, with its own ideas about
// keepalive, chunking and back-pressure. Paths start with /node so that a route can tell them.

import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';

const [host, port] = process.argv.slice(2);
const EVENTS = 10;
const EVENT_PAUSE_MS = 100;

// Reads a body to its end without keeping it.
async function digest(request) {
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const piece of request) {
    hash.update(piece);
    bytes += piece.length;
  }
  return { bytes, sha256: hash.digest('hex') };
}

async function echo(request, response) {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  const body = Buffer.concat(pieces);
  response.writeHead(200, {
    'Content-Type': request.headers['content-type'] ?? 'application/octet-stream',
    'Content-Length': body.length,
  });
  response.end(body);
}

// What came, and how it was framed.
async function count(request, response) {
  const seen = await digest(request);
  seen.transferEncoding = request.headers['transfer-encoding'] ?? null;
  seen.contentLength = request.headers['content-length'] ?? null;
  response.writeHead(200, { 'Content-Type': 'application/json' });
  response.end(JSON.stringify(seen));
}

// Bytes are counted and not hashed: this is about memory and flow, not about content.
async function sink(request, response) {
  let bytes = 0;
  for await (const piece of request) bytes += piece.length;
  response.end(String(bytes));
}

async function chunked(response) {
  for (let number = 0; number < 20; number += 1) {
    response.write(`piece ${number}\n`);
    await pause(10);
  }
  response.end();
}

async function events(response) {
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
  for (let number = 0; number < EVENTS && !response.destroyed; number += 1) {
    if (number > 0) await pause(EVENT_PAUSE_MS);
    response.write(`id: ${number}\ndata: ${Date.now()}\n\n`);
  }
  response.end();
}

async function source(bytes, response) {
  const block = Buffer.alloc(256 * 1024, 'x');
  response.writeHead(200, { 'Content-Type': 'application/octet-stream', 'Content-Length': bytes });
  for (let left = bytes; left > 0 && !response.destroyed; left -= block.length) {
    const piece = left < block.length ? block.subarray(0, left) : block;
    if (!response.write(piece)) {
      await new Promise((resolve) => {
        response.once('drain', resolve);
        response.once('close', resolve);
      });
    }
  }
  response.end();
}

async function answer(request, response) {
  const url = new URL(request.url, 'http://origin');
  switch (url.pathname) {
    case '/health':
      response.end('ok');
      return;
    case '/node/':
      response.setHeader('Content-Type', 'application/json');
      response.end(JSON.stringify({ server: 'node', method: request.method, headers: request.headers }));
      return;
    case '/node/echo':
      return echo(request, response);
    case '/node/count':
      return count(request, response);
    case '/node/sink':
      return sink(request, response);
    case '/node/chunked':
      return chunked(response);
    case '/node/events':
      return events(response);
    case '/node/source':
      return source(Number(url.searchParams.get('bytes')), response);
    case '/node/204':
      response.writeHead(204).end();
      return;
    case '/node/304':
      response.writeHead(304, { ETag: '"e2e"' }).end();
      return;
    default:
      response.writeHead(404).end('no such path\n');
  }
}

const server = createServer((request, response) => {
  answer(request, response).catch((error) => {
    // A client that left in the middle; anything else shows as a broken answer at the client.
    console.error(`${request.method} ${request.url}: ${error.message}`);
    response.destroy();
  });
});
server.requestTimeout = 0;
server.listen(Number(port), host, () => console.log('ready'));
