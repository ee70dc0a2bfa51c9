// An exported model and the detector of faces, run by onnxruntime-web from the files beside the page.

import { blank } from "./photo.js";

const SEEN = 640; // side of the square in which YuNet looks for faces
const SURE = 0.7; // the least score of a face
const CLOSE = 224, EYES = 75; // side of the close look at a face, and pixels between its eyes there, as in Python

const json = async (path) => {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path} is missing: run python examples/browser/prepare.py first`);
  return answer.json();
};

export const available = () => json("files/models.json");

let runtime;
async function session(path) {
  runtime ??= import("./files/ort.wasm.bundle.min.mjs").then((ort) => {
    ort.env.wasm.numThreads = 1; // more need headers that a plain static host does not send
    ort.env.logLevel = "error";
    return ort;
  });
  const ort = await runtime;
  return ort.InferenceSession.create(path);
}

const tensor = async (values, shape) => new (await runtime).Tensor("float32", values, shape);

export class Model {
  static async load(name) {
    const folder = `files/${name}`, model = new Model();
    const read = [json(`${folder}/onnx.json`), session(`${folder}/encoder.onnx`), session(`${folder}/decoder.onnx`)];
    [model.about, model.encoder, model.decoder] = await Promise.all(read);
    if (!model.about.graphs.decoder.inputs.includes("w"))
      throw new Error(`${name}: expected a model with subspaces (csvae), got ${model.about.model}`);
    return model;
  }

  get size() { return this.about.shape[1]; }

  get width() { return this.about.class_means[0][0].length; }

  /** The code {z, w, y} of a face, three planes of `size` pixels. */
  async encode({ planes }, luma) {
    const { size } = this, [channels] = this.about.shape, area = size * size, x = new Float32Array(channels * area);
    if (channels === 3) planes.forEach((plane, c) => x.set(plane, c * area));
    else planes.forEach((plane, c) => plane.forEach((value, i) => (x[i] += luma[c] * value)));
    const { z, w, y } = await this.encoder.run({ x: await tensor(x, [1, channels, size, size]) });
    return { z: z.data, w: w.data, y: y.data };
  }

  /** The picture of a code. */
  async decode({ z, w }) {
    const shape = [1, this.about.attributes.length, this.width];
    const { x } = await this.decoder.run({ z: await tensor(z, [1, z.length]), w: await tensor(w, shape) });
    const { size } = this, area = size * size, out = blank(size, size, x.dims[1]);
    out.planes.forEach((plane, c) => plane.set(x.data.subarray(c * area, (c + 1) * area)));
    return out;
  }

  /** The point w_i of an attribute. */
  point(w, i) { return [...w.subarray(i * this.width, (i + 1) * this.width)]; }

  /** The point that a number stands for: 0 absent, 1 present, along the line through both. */
  at(i, value) {
    const [absent, present] = this.about.class_means[i];
    return absent.map((start, d) => start + value * (present[d] - start));
  }

  /** The number that a point w_i is nearest to. */
  level(w, i) {
    const [absent, present] = this.about.class_means[i], point = this.point(w, i);
    const along = present.map((end, d) => end - absent[d]);
    const square = along.reduce((sum, step) => sum + step * step, 0);
    return along.reduce((sum, step, d) => sum + step * (point[d] - absent[d]), 0) / Math.max(square, 1e-12);
  }
}

/** The landmarks of the surest face of a canvas: eyes, nose, mouth corners; null without a face. */
export async function findFace(photo) {
  const rough = await look(photo, [0, 0], SEEN / Math.max(photo.width, photo.height));
  if (!rough) return null;
  const [left, right] = rough, scale = EYES / Math.max(1, Math.hypot(right[0] - left[0], right[1] - left[1]));
  const middle = [0, 1].map((d) => rough.reduce((sum, point) => sum + point[d], 0) / rough.length);
  // the landmarks of a face near the size that the network knows best are finer
  return (await look(photo, middle.map((at) => at - CLOSE / 2 / scale), scale, CLOSE)) ?? rough;
}

/** The same in a part of the canvas, from a corner on, enlarged by `scale` to at most `side` pixels. */
async function look(photo, [left, top], scale, side = SEEN) {
  findFace.network ??= session("files/face_detection_yunet_2023mar.onnx");
  const network = await findFace.network;
  const small = Object.assign(document.createElement("canvas"), { width: SEEN, height: SEEN });
  const context = small.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.beginPath();
  context.rect(0, 0, side, side);
  context.clip();
  context.drawImage(photo, -left * scale, -top * scale, photo.width * scale, photo.height * scale);
  const { data } = context.getImageData(0, 0, SEEN, SEEN), area = SEEN * SEEN, x = new Float32Array(3 * area);
  for (let i = 0; i < area; i++) for (let c = 0; c < 3; c++) x[c * area + i] = data[4 * i + 2 - c]; // blue first
  const found = await network.run({ input: await tensor(x, [1, 3, SEEN, SEEN]) });
  let best = SURE, landmarks = null;
  for (const stride of [8, 16, 32]) {
    const across = SEEN / stride, [cls, obj, points] = ["cls", "obj", "kps"].map((name) => found[`${name}_${stride}`].data);
    for (let i = 0; i < across * across; i++) {
      const score = Math.sqrt(Math.min(Math.max(cls[i], 0), 1) * Math.min(Math.max(obj[i], 0), 1));
      if (score <= best) continue;
      best = score;
      const cell = [i % across, Math.floor(i / across)], corner = [left, top];
      landmarks = Array.from({ length: 5 }, (_, n) =>
        cell.map((at, d) => corner[d] + ((points[10 * i + 2 * n + d] + at) * stride) / scale));
    }
  }
  return landmarks;
}
