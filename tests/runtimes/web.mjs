// Runs ONNX files in onnxruntime-web under Node.
// usage: node web.mjs JOB.json
// JOB: {"models": [path], "feeds": [{"name", "type", "dims", "path"}], "out": folder}
// Writes the outputs of model i, one after the other, to out/i.bin.
import { readFileSync, writeFileSync } from "node:fs";
import * as ort from "onnxruntime-web";

ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";
const arrays = {
  float32: Float32Array,
  int64: BigInt64Array,
  int32: Int32Array,
  uint8: Uint8Array,
};
const job = JSON.parse(readFileSync(process.argv[2], "utf8"));
for (const [number, path] of job.models.entries()) {
  const session = await ort.InferenceSession.create(readFileSync(path), {
    executionProviders: ["wasm"],
  });
  const feeds = {};
  for (const { name, type, dims, path } of job.feeds) {
    const bytes = readFileSync(path);
    const data = new arrays[type](
      bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length),
    );
    feeds[name] = new ort.Tensor(type, data, dims);
  }
  const outputs = await session.run(feeds);
  const parts = session.outputNames.map((name) => {
    const { data } = outputs[name];
    return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  });
  writeFileSync(`${job.out}/${number}.bin`, Buffer.concat(parts));
}
