// @ts-check
/**
 * The browser as a verifier: DSSE envelopes, signed notes and RFC 6962 proofs, checked here.
 *
 * Every function answers `true`, `false`, or `null` where this browser cannot check (no WebCrypto
 * Ed25519: plain http on another host). Small-order keys are refused by a block list, because
 * WebCrypto accepts some edge cases that libsodium refuses. What is malformed is `false`, too.
 * The same vectors are checked by `rahba` in Python (`tests/vectors`).
 */

const ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const MESSAGE_TYPE = "application/vnd.rahba.message+json";
const BATCH_TYPE = "application/vnd.rahba.digests";
const MAX_NOTE = 64 * 1024;
const MAX_RECEIPT = 512 * 1024;
const MAX_SIGNATURES = 100;
const MAX_STEPS = 63;
const text = new TextEncoder();

/** The eight small-order points and their non-canonical spellings, sign bit cleared, as hex. */
const SMALL_ORDER = new Set([
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]);

/** @type {Map<string, Promise<CryptoKey | null>>} */
const keys = new Map();

/**
 * @param {string} encoded standard base64, in its one spelling
 * @returns {Uint8Array}
 */
export function bytesOf(encoded) {
  const raw = atob(encoded);
  if (btoa(raw) !== encoded) throw new TypeError("not canonical base64");
  return Uint8Array.from(raw, (char) => char.charCodeAt(0));
}

/**
 * @param {string} digits hex
 * @param {number} size how many bytes it must be
 * @returns {Uint8Array}
 */
export function unhex(digits, size = 32) {
  if (digits.length !== 2 * size || !/^[0-9a-f]*$/.test(digits)) throw new TypeError("not hex");
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** @param {Uint8Array} bytes */
export function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * @param {string} did a did:key of Ed25519
 * @returns {Uint8Array | null} the 32-byte key, or null if it is none
 */
export function keyOf(did) {
  if (!did.startsWith("did:key:z") || did.length !== 56) return null;
  let number = 0n;
  for (const char of did.slice(9)) {
    const value = ALPHABET.indexOf(char);
    if (value < 0) return null;
    number = number * 58n + BigInt(value);
  }
  const digits = number.toString(16).padStart(68, "0");
  if (digits.length !== 68 || !digits.startsWith("ed01")) return null;
  const found = digits.slice(4).match(/../g) ?? [];
  const key = Uint8Array.from(found, (pair) => parseInt(pair, 16));
  return isSmall(key) ? null : key;
}

/** @param {Uint8Array} key */
function isSmall(key) {
  const positive = key.slice();
  positive[31] &= 0x7f;
  return SMALL_ORDER.has(hex(positive));
}

/** @param {Uint8Array} raw */
function imported(raw) {
  const name = hex(raw);
  let key = keys.get(name);
  if (!key) {
    key = crypto.subtle
      .importKey("raw", raw.slice(), { name: "Ed25519" }, false, ["verify"])
      .catch(() => null);
    keys.set(name, key);
  }
  return key;
}

/**
 * @param {Uint8Array} key
 * @param {Uint8Array} signature
 * @param {Uint8Array} message
 * @returns {Promise<boolean | null>}
 */
async function verifies(key, signature, message) {
  if (!globalThis.crypto?.subtle) return null;
  const ready = await imported(key);
  if (!ready) return null;
  return crypto.subtle.verify({ name: "Ed25519" }, ready, signature.slice(), message.slice());
}

/** @param {...Uint8Array} parts */
export function joined(...parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let place = 0;
  for (const part of parts) {
    all.set(part, place);
    place += part.length;
  }
  return all;
}

/**
 * DSSE's pre-authentication encoding (DSSE v1).
 * @param {string} type
 * @param {Uint8Array} payload
 */
function pae(type, payload) {
  const { length } = text.encode(type);
  return joined(text.encode(`DSSEv1 ${length} ${type} ${payload.length} `), payload);
}

/**
 * What a signature is over: one payload, or for messages the digests of several, this among them.
 * @param {string} type
 * @param {Uint8Array} payload
 * @param {string | undefined} of
 * @returns {Promise<Uint8Array | null>} null: the signature is of other payloads
 */
async function signedBytes(type, payload, of) {
  const message = pae(type, payload);
  if (of === undefined) return message;
  const digests = bytesOf(of);
  const count = digests.length / 32;
  if (type !== MESSAGE_TYPE || ![2, 3, 4, 5, 6, 7, 8].includes(count)) return null;
  const ours = hex(await sha256(message));
  for (let at = 0; at < digests.length; at += 32) {
    if (hex(digests.slice(at, at + 32)) === ours) return pae(BATCH_TYPE, digests);
  }
  return null;
}

/**
 * Opens a DSSE envelope and checks every signature.
 * @param {string} raw the envelope, base64 of its bytes
 * @returns {Promise<{payload: any, kind: string, signers: string[], valid: boolean | null}>}
 */
export async function openEnvelope(raw) {
  const envelope = JSON.parse(new TextDecoder().decode(bytesOf(raw)));
  const payload = bytesOf(envelope.payload);
  /** @type {boolean | null} */
  let valid = envelope.signatures.length > 0;
  for (const { keyid, sig, of } of envelope.signatures) {
    const key = keyOf(keyid);
    const message = await signedBytes(envelope.payloadType, payload, of);
    const answer = key && message ? await verifies(key, bytesOf(sig), message) : false;
    valid = answer === false || valid === false ? false : answer === null ? null : valid;
  }
  return {
    payload: JSON.parse(new TextDecoder().decode(payload)),
    kind: envelope.payloadType,
    signers: envelope.signatures.map((/** @type {{keyid: string}} */ item) => item.keyid),
    valid,
  };
}

/** @param {Uint8Array} bytes */
export async function sha256(bytes) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes.slice()));
}

/**
 * Reads a C2SP verifier key, `name+hash+base64`, and checks that the hash fits.
 * @param {string} verifierKey
 * @returns {Promise<{name: string, mark: string, key: Uint8Array}>}
 */
export async function readVerifierKey(verifierKey) {
  const found = /^([^\s+]{1,255})\+([0-9a-f]{8})\+([A-Za-z0-9+/=]{1,128})$/.exec(verifierKey);
  if (!found) throw new TypeError("not a verifier key");
  const [, name, mark, encoded] = found;
  const typed = bytesOf(encoded);
  const key = typed.slice(1);
  const digest = await sha256(joined(text.encode(`${name}\n`), typed));
  if (typed.length !== 33 || typed[0] !== 1 || isSmall(key)) throw new TypeError("not Ed25519");
  if (hex(digest.slice(0, 4)) !== mark) throw new TypeError("the hash is of another key");
  return { name, mark, key };
}

/**
 * The signatures of a note that name the key; a malformed line makes the whole note malformed.
 * @param {string} lines
 * @param {{name: string, mark: string}} key
 */
function signaturesBy(lines, { name, mark }) {
  const all = lines.slice(0, -1).split("\n");
  if (!lines.endsWith("\n") || all.length > MAX_SIGNATURES) throw new TypeError("not a note");
  return all.flatMap((line) => {
    const found = /^\u2014 ([^\s+]{1,255}) ([A-Za-z0-9+/=]{1,8192})$/.exec(line);
    const raw = found ? bytesOf(found[2]) : Uint8Array.of();
    if (!found || raw.length <= 4) throw new TypeError("not a signature line");
    return found[1] === name && hex(raw.slice(0, 4)) === mark ? [raw.slice(4)] : [];
  });
}

/**
 * Opens a signed note (C2SP signed-note) that carries a checkpoint (C2SP tlog-checkpoint).
 * @param {string} note
 * @param {string} verifierKey `name+hash+base64`
 * @returns {Promise<{origin: string, size: number, root: string, valid: boolean | null}>}
 */
export async function openCheckpoint(note, verifierKey) {
  const end = note.lastIndexOf("\n\n");
  const body = note.slice(0, end + 1);
  const [origin = "", size = "", root = ""] = body.split("\n");
  const facts = { origin, size: Number(size), root };
  try {
    const key = await readVerifierKey(verifierKey.trim());
    const signatures = signaturesBy(note.slice(end + 2), key);
    // eslint-disable-next-line no-control-regex -- control characters are what is looked for
    const malformed = note.length > MAX_NOTE || /[\x00-\x09\x0b-\x1f\x7f]/.test(note);
    const lines = body.slice(0, -1).split("\n");
    if (end < 0 || malformed || lines.length < 3 || lines.includes("")) throw new TypeError("no");
    if (origin !== key.name || !/^(0|[1-9][0-9]{0,15})$/.test(size)) throw new TypeError("no");
    if (!Number.isSafeInteger(facts.size) || bytesOf(root).length !== 32) throw new TypeError("no");
    /** @type {boolean | null} */
    let valid = signatures.length > 0;
    for (const signature of signatures) {
      const answer = await verifies(key.key, signature, text.encode(body));
      valid = answer === false || valid === false ? false : answer === null ? null : valid;
    }
    return { ...facts, valid };
  } catch {
    return { ...facts, valid: false };
  }
}

/** @param {Uint8Array} left @param {Uint8Array} right */
function nodeHash(left, right) {
  return sha256(joined(Uint8Array.of(1), left, right));
}

/**
 * The RFC 6962 hash of a leaf.
 * @param {Uint8Array} entry
 */
export function leafHash(entry) {
  return sha256(joined(Uint8Array.of(0), entry));
}

/**
 * Says whether `inner` and `outer` are whole numbers, none negative, the one not above the other.
 * @param {number} inner
 * @param {number} outer
 */
export function within(inner, outer) {
  return [inner, outer].every(Number.isSafeInteger) && inner >= 0 && inner <= outer;
}

/**
 * Says which steps of a path are left and right brothers on the way up from `node`.
 * @param {number} node
 * @param {number} last the last node of the same level
 * @returns {("left" | "right")[]}
 */
export function sides(node, last) {
  /** @type {("left" | "right")[]} */
  const found = [];
  for (let [at, end] = [node, last]; end; at = Math.floor(at / 2), end = Math.floor(end / 2)) {
    if (at % 2) found.push("left");
    else if (at < end) found.push("right");
  }
  return found;
}

/**
 * Checks that a leaf is in the log (RFC 6962, section 2.1.1).
 * @param {string} leaf its hash as hex
 * @param {number} index
 * @param {number} size
 * @param {string[]} path hashes as hex
 * @param {string} root base64
 * @returns {Promise<boolean | null>}
 */
export async function includesLeaf(leaf, index, size, path, root) {
  if (!globalThis.crypto?.subtle) return null;
  if (!within(index, size - 1)) return false;
  try {
    const way = sides(index, size - 1);
    if (way.length !== path.length || path.length > MAX_STEPS) return false;
    let found = unhex(leaf);
    for (const [at, side] of way.entries()) {
      const step = unhex(path[at]);
      found = await (side === "left" ? nodeHash(step, found) : nodeHash(found, step));
    }
    return hex(found) === hex(bytesOf(root));
  } catch {
    return false;
  }
}

/**
 * Checks that a log of `newSize` extends the one of `oldSize` (RFC 6962, section 2.1.2).
 * @param {number} oldSize
 * @param {number} newSize
 * @param {string} oldRoot base64
 * @param {string} newRoot base64
 * @param {string[]} path hashes as hex
 * @returns {Promise<boolean | null>}
 */
export async function extendsLog(oldSize, newSize, oldRoot, newRoot, path) {
  if (!globalThis.crypto?.subtle) return null;
  if (!within(oldSize, newSize)) return false;
  try {
    const before = hex(bytesOf(oldRoot));
    const empty = oldSize !== 0 || before === hex(await sha256(Uint8Array.of()));
    if (oldSize === newSize) return empty && path.length === 0 && oldRoot === newRoot;
    if (oldSize === 0) return empty && path.length === 0;
    let [node, last] = [oldSize - 1, newSize - 1];
    for (; node % 2; node = Math.floor(node / 2)) last = Math.floor(last / 2);
    const steps = path.map((step) => unhex(step));
    if (node === 0) steps.unshift(bytesOf(oldRoot)); // the old tree is one node: its own root
    const way = sides(node, last);
    if (steps.length !== way.length + 1) return false;
    let [older, newer] = [steps[0], steps[0]];
    for (const [at, side] of way.entries()) {
      const step = steps[at + 1];
      if (side === "left") older = await nodeHash(step, older);
      newer = await (side === "left" ? nodeHash(step, newer) : nodeHash(newer, step));
    }
    return hex(older) === before && hex(newer) === hex(bytesOf(newRoot));
  } catch {
    return false;
  }
}

/**
 * Opens a receipt (C2SP tlog-proof) that carries its entry: offline, all of it is checked.
 * @param {string} receipt
 * @param {string} verifierKey
 * @returns {Promise<{entry: Uint8Array, index: number, size: number, valid: boolean | null}>}
 */
export async function openReceipt(receipt, verifierKey) {
  const nothing = { entry: Uint8Array.of(), index: 0, size: 0, valid: false };
  const end = receipt.indexOf("\n\n");
  const [magic, extra = "", index = "", ...path] = receipt.slice(0, Math.max(end, 0)).split("\n");
  const place = /^index (0|[1-9][0-9]{0,15})$/.exec(index);
  const known = magic === "c2sp.org/tlog-proof@v1" && extra.startsWith("extra ");
  if (!known || !place || receipt.length > MAX_RECEIPT) return nothing;
  try {
    const entry = bytesOf(extra.slice(6));
    const steps = path.map((step) => hex(bytesOf(step)));
    const { size, root, valid } = await openCheckpoint(receipt.slice(end + 2), verifierKey);
    const leaf = hex(await leafHash(entry));
    const included = await includesLeaf(leaf, Number(place[1]), size, steps, root);
    return { entry, index: Number(place[1]), size, valid: included && valid };
  } catch {
    return nothing;
  }
}
