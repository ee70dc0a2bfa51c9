// Pictures as planes of float32: {width, height, planes: [Float32Array, …]}, values in [0, 1]. Points are [x, y] in
// pixels and count edges: the first pixel reaches from 0 to 1. As csvae_hub.editing.alignment and .blending do it.

const FRAME = [178, 218]; // CelebA's aligned pictures; their central square is what the training pictures show
const CROP = 148;
const FEATHER = 0.08; // the mask's rise at the border of the crop, in shares of its side
const FLOOR = 0.01, WEAK = 0.08, OPAQUE = 0.08; // see layer()
const TINT = 1 / 16;
const FINER = 4; // a layer is enlarged at most so many times
export const LUMA = [0.299, 0.587, 0.114];

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// -- alignment ---------------------------------------------------------------------------------------------------------

/** The landmarks, as onnx.json has them, in a crop of `size` pixels. */
export const template = (landmarks, size) =>
  landmarks.map((point) => point.map((value, i) => ((value - Math.floor((FRAME[i] - CROP) / 2)) * size) / CROP));

/** The similarity p to a p + b, of complex numbers, that brings points nearest to others (least squares). */
export function fit(source, target) {
  const mean = (points) => [0, 1].map((i) => points.reduce((sum, p) => sum + p[i], 0) / points.length);
  const [p0, q0] = [mean(source), mean(target)];
  let real = 0, imaginary = 0, square = 0;
  source.forEach((point, i) => {
    const [x, y] = [point[0] - p0[0], point[1] - p0[1]], [u, v] = [target[i][0] - q0[0], target[i][1] - q0[1]];
    real += x * u + y * v;
    imaginary += x * v - y * u;
    square += x * x + y * y;
  });
  const a = [real / square, imaginary / square];
  return { a, b: [q0[0] - a[0] * p0[0] + a[1] * p0[1], q0[1] - a[0] * p0[1] - a[1] * p0[0]] };
}

export const map = ({ a, b }, [x, y]) => [a[0] * x - a[1] * y + b[0], a[1] * x + a[0] * y + b[1]];

export const scaleOf = ({ a }) => Math.hypot(...a);

export function inverse({ a, b }) {
  const square = a[0] ** 2 + a[1] ** 2, c = [a[0] / square, -a[1] / square];
  return { a: c, b: [-(c[0] * b[0] - c[1] * b[1]), -(c[0] * b[1] + c[1] * b[0])] };
}

/** The transform of a picture whose first `corner` pixels are cut off. */
export const moved = (transform, corner) => ({ a: transform.a, b: map(transform, corner) });

/** The square of `size` pixels that a similarity makes of a picture, antialiased. */
export function warped(picture, transform, size) {
  const back = inverse(transform), finer = scaleOf(back), factor = Math.max(1, Math.floor(finer / 2));
  const [low, high] = bounds(picture, back, size, 3 * factor);
  const patch = reduced(picture, low, high, factor);
  const slant = (Math.abs(back.a[0]) + Math.abs(back.a[1])) / finer; // a turned grid must be finer to hold the same detail
  const side = Math.max(size, Math.round((finer * slant * size) / factor)), step = size / side;
  const out = blank(side, side, patch.planes.length);
  for (let y = 0; y < side; y++)
    for (let x = 0; x < side; x++) {
      const [u, v] = map(back, [(x + 0.5) * step, (y + 0.5) * step]);
      cubic(patch, (u - low[0]) / factor, (v - low[1]) / factor, out, y * side + x);
    }
  return side === size ? out : resized(out, size);
}

/** The box, low and high corner, of a picture's pixels that a square of `size` pixels touches. */
export function bounds({ width, height }, back, size, margin = 0) {
  const corners = [[0, 0], [size, 0], [size, size], [0, size]].map((corner) => map(back, corner));
  const limit = [width, height];
  const low = [0, 1].map((i) => clamp(Math.floor(Math.min(...corners.map((c) => c[i])) - margin), 0, limit[i] - 1));
  const high = [0, 1].map((i) => clamp(Math.ceil(Math.max(...corners.map((c) => c[i])) + margin), low[i] + 1, limit[i]));
  return [low, high];
}

export const blank = (width, height, count) => ({
  width, height, planes: Array.from({ length: count }, () => new Float32Array(width * height)),
});

/** A box of a picture, averaged over `factor` pixels each way. */
function reduced(picture, [left, top], [right, bottom], factor) {
  const out = blank(Math.ceil((right - left) / factor), Math.ceil((bottom - top) / factor), picture.planes.length);
  out.planes.forEach((plane, c) => {
    const from = picture.planes[c];
    for (let y = 0; y < out.height; y++)
      for (let x = 0; x < out.width; x++) {
        const xs = left + x * factor, ys = top + y * factor;
        const xe = Math.min(xs + factor, right), ye = Math.min(ys + factor, bottom);
        let sum = 0;
        for (let v = ys; v < ye; v++) for (let u = xs; u < xe; u++) sum += from[v * picture.width + u];
        plane[y * out.width + x] = sum / ((xe - xs) * (ye - ys));
      }
  });
  return out;
}

const kernel = (t, a) => {
  t = Math.abs(t);
  return t < 1 ? ((a + 2) * t - (a + 3)) * t * t + 1 : t < 2 ? a * (((t - 5) * t + 8) * t - 4) : 0;
};

function cubic({ width, height, planes }, x, y, out, index) {
  const left = Math.floor(x - 0.5), top = Math.floor(y - 0.5);
  const across = [-1, 0, 1, 2].map((i) => kernel(x - 0.5 - left - i, -0.75));
  const down = [-1, 0, 1, 2].map((i) => kernel(y - 0.5 - top - i, -0.75));
  planes.forEach((plane, c) => {
    let sum = 0;
    for (let v = 0; v < 4; v++) {
      const row = clamp(top + v - 1, 0, height - 1) * width;
      for (let u = 0; u < 4; u++) sum += down[v] * across[u] * plane[row + clamp(left + u - 1, 0, width - 1)];
    }
    out.planes[c][index] = clamp(sum, 0, 1);
  });
}

/** A square picture of another size: antialiased bicubic, as Pillow's and torch's. */
export function resized(picture, side) {
  const weights = resampling(picture.width, side);
  const once = (from) => { // resizes the rows and turns the picture
    const to = blank(from.height, side, from.planes.length);
    from.planes.forEach((plane, c) =>
      weights.forEach(([start, taps], x) => {
        for (let y = 0; y < from.height; y++) {
          let sum = 0;
          for (let i = 0; i < taps.length; i++) sum += taps[i] * plane[y * from.width + start + i];
          to.planes[c][x * to.width + y] = sum;
        }
      }),
    );
    return to;
  };
  return once(once(picture));
}

function resampling(from, to) {
  const scale = from / to, stretch = Math.max(scale, 1);
  return Array.from({ length: to }, (_, x) => {
    const middle = (x + 0.5) * scale;
    const start = Math.max(0, Math.floor(middle - 2 * stretch + 0.5));
    const end = Math.min(from, Math.floor(middle + 2 * stretch + 0.5));
    const taps = Array.from({ length: end - start }, (_, i) => kernel((start + i + 0.5 - middle) / stretch, -0.5));
    const sum = taps.reduce((a, b) => a + b);
    return [start, taps.map((tap) => tap / sum)];
  });
}

// -- what changed is put back ------------------------------------------------------------------------------------------

const rise = (value, low, high) => {
  const t = clamp((value - low) / (high - low), 0, 1);
  return t * t * (3 - 2 * t);
};

/** A plane smoothed by a Gaussian, cut off at 3 sigma; the border's values go on outside. */
function smoothed(plane, size, sigma) {
  const radius = Math.max(1, Math.min(Math.round(3 * sigma), size - 1));
  const taps = Float32Array.from({ length: 2 * radius + 1 }, (_, i) => Math.exp(-0.5 * ((i - radius) / sigma) ** 2));
  const sum = taps.reduce((a, b) => a + b);
  const once = (from) => { // smooths the rows and turns the plane
    const to = new Float32Array(size * size), line = new Float32Array(size + 2 * radius);
    for (let y = 0; y < size; y++) {
      for (let x = 0; x < line.length; x++) line[x] = from[y * size + clamp(x - radius, 0, size - 1)] / sum;
      for (let x = 0; x < size; x++) {
        let total = 0;
        for (let i = 0; i < taps.length; i++) total += taps[i] * line[x + i];
        to[x * size + y] = total;
      }
    }
    return to;
  };
  return once(once(plane));
}

/**
 * Three colours and an opacity that bring an edit into the photo. `edited` and `own` are decoded, `own` without an edit;
 * `crop` is the face in the photo. Up to the floor the layer is empty; at twice the floor it is the difference; there, but
 * not below OPAQUE, it is the decoded face itself, in the colours of the photo around it.
 */
export function layer(edited, own, crop) {
  const size = crop.width, smooth = (plane, sigma) => smoothed(plane, size, sigma);
  if (edited.planes.length === 1) {
    const grey = crop.planes[0].map((_, i) => LUMA.reduce((sum, weight, c) => sum + weight * crop.planes[c][i], 0));
    const tints = crop.planes.map((plane) => smooth(plane.map((value, i) => value - grey[i]), TINT * size));
    const tinted = (picture) => ({ planes: tints.map((tint) => tint.map((value, i) => value + picture.planes[0][i])) });
    [edited, own] = [tinted(edited), tinted(own)];
  }
  const change = edited.planes.map((plane, c) => plane.map((value, i) => value - own.planes[c][i]));
  const strength = smooth(change[0].map((_, i) => Math.max(...change.map((plane) => Math.abs(plane[i])))), size / 64);
  const floor = Math.max(FLOOR, WEAK * strength.reduce((a, b) => Math.max(a, b)));
  const opaque = Math.max(OPAQUE, 2 * floor);
  const strong = strength.map((value) => rise(value, opaque / 2, opaque));
  const wider = strong.map((_, i) => {
    const x = i % size, y = Math.floor(i / size);
    let most = 0;
    for (let v = Math.max(y - 1, 0); v <= Math.min(y + 1, size - 1); v++)
      for (let u = Math.max(x - 1, 0); u <= Math.min(x + 1, size - 1); u++) most = Math.max(most, strong[v * size + u]);
    return most;
  });
  const opacity = smooth(wider, size / 64), stays = opacity.map((value) => 1.01 - value), around = smooth(stays, size / 10);
  const colours = change.map((plane, c) => {
    const match = smooth(stays.map((value, i) => value * (crop.planes[c][i] - own.planes[c][i])), size / 10);
    return plane.map((value, i) => {
      const shown = rise(strength[i], floor, 2 * floor) * value;
      return shown + opacity[i] * (edited.planes[c][i] + match[i] / around[i] - shown);
    });
  });
  return { width: size, height: size, planes: [...colours, opacity] };
}

/** Puts a layer into the pixels of a photo, in place: p + mask (colour - opacity p), with a mask that fades at the border. */
export function putBack(image, layer, transform) {
  const size = layer.width, back = inverse(transform);
  const fine = resized(layer, Math.max(1, Math.round(size * Math.min(scaleOf(back), FINER))));
  const [low, high] = bounds(image, back, size), side = fine.width, values = new Float32Array(4);
  for (let y = low[1]; y < high[1]; y++)
    for (let x = low[0]; x < high[0]; x++) {
      const [u, v] = map(transform, [x + 0.5, y + 0.5]).map((value) => value / size);
      const mask = rise(Math.min(u, 1 - u), 0, FEATHER) * rise(Math.min(v, 1 - v), 0, FEATHER);
      if (!mask) continue;
      linear(fine, u * side - 0.5, v * side - 0.5, values);
      const at = 4 * (y * image.width + x);
      for (let c = 0; c < 3; c++) image.data[at + c] += mask * (255 * values[c] - values[3] * image.data[at + c]);
    }
}

function linear({ width, planes }, x, y, values) {
  [x, y] = [clamp(x, 0, width - 1), clamp(y, 0, width - 1)];
  const left = Math.min(Math.floor(x), Math.max(width - 2, 0)), top = Math.min(Math.floor(y), Math.max(width - 2, 0));
  const [u, v, at] = [x - left, y - top, top * width + left];
  planes.forEach((plane, c) => {
    const above = plane[at] + u * (plane[at + 1] - plane[at]);
    const below = plane[at + width] + u * (plane[at + width + 1] - plane[at + width]);
    values[c] = above + v * (below - above);
  });
}

// -- pixels ------------------------------------------------------------------------------------------------------------

/** The colours of an ImageData. */
export function picture({ data, width, height }) {
  const out = blank(width, height, 3);
  for (let i = 0; i < width * height; i++) for (let c = 0; c < 3; c++) out.planes[c][i] = data[4 * i + c] / 255;
  return out;
}

/** A picture of one or three planes as an ImageData. */
export function pixels({ width, height, planes }) {
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = 255 * planes[c % planes.length][i];
    image.data[4 * i + 3] = 255;
  }
  return image;
}
