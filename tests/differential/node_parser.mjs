// node's own HTTP parser over length-prefixed cases on standard input: one JSON line a case, as http1_verdict prints.
import { readFileSync, writeSync } from "node:fs";

const { HTTPParser, allMethods, methods: common } = process.binding("http_parser");
const methods = allMethods ?? common;
const input = readFileSync(0);

function read(bytes) {
  const parser = new HTTPParser();
  const requests = [];
  let request = null;
  parser.initialize(HTTPParser.REQUEST, {});
  let early = "";
  parser[HTTPParser.kOnHeaders | 0] = (_fields, url) => void (early += url);
  parser[HTTPParser.kOnHeadersComplete | 0] = (major, minor, headers, method, url) => {
    request = { method: methods[method], target: url ?? early, parts: [] };
    early = "";
    return 0;
  };
  parser[HTTPParser.kOnBody | 0] = (part) => void request.parts.push(Buffer.from(part));
  parser[HTTPParser.kOnMessageComplete | 0] = () => {
    const { method, target, parts } = request;
    requests.push({ method, target, body: Buffer.concat(parts).toString("hex") });
  };
  const result = parser.execute(bytes);
  return { error: result instanceof Error ? result.code ?? result.message : null, requests };
}

let out = "";
for (let at = 0; at + 4 <= input.length; ) {
  const n = input.readUInt32BE(at);
  out += JSON.stringify(read(input.subarray(at + 4, at + 4 + n))) + "\n";
  at += 4 + n;
}
for (let bytes = Buffer.from(out), at = 0; at < bytes.length; ) at += writeSync(1, bytes, at);
