// @ts-check
/**
 * The browser as a verifier: DSSE envelopes, signed notes and RFC 6962 consistency, checked here.
 *
 * Every function answers `true`, `false`, or `null` where this browser cannot check (no WebCrypto
 * Ed25519: plain http on another host). Small-order keys are refused by a block list, because
 * WebCrypto accepts some edge cases that libsodium refuses.
 */

const ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
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

/** @param {string} encoded standard base64 */
export function bytesOf(encoded) {
  return Uint8Array.from(atob(encoded), (char) => char.charCodeAt(0));
}

/** @param {Uint8Array} bytes */
function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * @param {string} did a did:key of Ed25519
 * @returns {Uint8Array | null} the 32-byte key, or null if it is none
 */
export function keyOf(did) {
  if (!did.startsWith("did:key:z")) return null;
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
  const positive = key.slice();
  positive[31] &= 0x7f;
  return SMALL_ORDER.has(hex(positive)) ? null : key;
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
function joined(...parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let place = 0;
  for (const part of parts) {
    all.set(part, place);
    place += part.length;
  }
  return all;
}

/**
 * Opens a DSSE envelope and checks every signature (DSSE v1, PAE).
 * @param {string} raw the envelope, base64 of its bytes
 * @returns {Promise<{payload: any, signers: string[], valid: boolean | null}>}
 */
export async function openEnvelope(raw) {
  const envelope = JSON.parse(new TextDecoder().decode(bytesOf(raw)));
  const payload = bytesOf(envelope.payload);
  const kind = text.encode(envelope.payloadType);
  const head = text.encode(`DSSEv1 ${kind.length} ${envelope.payloadType} ${payload.length} `);
  const message = joined(head, payload);
  /** @type {boolean | null} */
  let valid = envelope.signatures.length > 0;
  for (const { keyid, sig } of envelope.signatures) {
    const key = keyOf(keyid);
    const answer = key ? await verifies(key, bytesOf(sig), message) : false;
    valid = answer === false || valid === false ? false : answer === null ? null : valid;
  }
  return {
    payload: JSON.parse(new TextDecoder().decode(payload)),
    signers: envelope.signatures.map((/** @type {{keyid: string}} */ item) => item.keyid),
    valid,
  };
}

/**
 * Opens a signed note (C2SP signed-note) that carries a checkpoint (C2SP tlog-checkpoint).
 * @param {string} note
 * @param {string} verifierKey `name+hash+base64`
 * @returns {Promise<{origin: string, size: number, root: string, valid: boolean | null}>}
 */
export async function openCheckpoint(note, verifierKey) {
  const [body, signatures] = note.split("\n\n");
  const [origin, size, root] = body.split("\n");
  const [name, , ...encoded] = verifierKey.trim().split("+");
  const typed = bytesOf(encoded.join("+"));
  const line = signatures.split("\n").find((entry) => entry.startsWith(`— ${name} `));
  const facts = { origin, size: Number(size), root };
  if (!line || typed[0] !== 1) return { ...facts, valid: false };
  const signature = bytesOf(line.slice(name.length + 3)).slice(4);
  return { ...facts, valid: await verifies(typed.slice(1), signature, text.encode(`${body}\n`)) };
}

/** @param {Uint8Array} left @param {Uint8Array} right */
async function nodeHash(left, right) {
  const parent = joined(Uint8Array.of(1), left, right);
  return new Uint8Array(await crypto.subtle.digest("SHA-256", parent));
}

/**
 * Checks that a log of `newSize` extends the one of `oldSize` (RFC 9162, section 2.1.4.2).
 * @param {number} oldSize
 * @param {number} newSize
 * @param {string} oldRoot base64
 * @param {string} newRoot base64
 * @param {string[]} path hashes as hex
 * @returns {Promise<boolean | null>}
 */
export async function extendsLog(oldSize, newSize, oldRoot, newRoot, path) {
  if (!globalThis.crypto?.subtle) return null;
  if (oldSize > newSize) return false;
  if (oldSize === newSize) return oldRoot === newRoot;
  if (oldSize === 0) return true;
  const hashes = path.map((item) =>
    Uint8Array.from(item.match(/../g) ?? [], (pair) => parseInt(pair, 16)),
  );
  if (Number.isInteger(Math.log2(oldSize))) hashes.unshift(bytesOf(oldRoot));
  if (hashes.length === 0) return false;
  let fn = oldSize - 1;
  let sn = newSize - 1;
  while (fn % 2 === 1) {
    fn = Math.floor(fn / 2);
    sn = Math.floor(sn / 2);
  }
  let fr = hashes[0];
  let sr = hashes[0];
  for (const hash of hashes.slice(1)) {
    if (sn === 0) return false;
    if (fn % 2 === 1 || fn === sn) {
      fr = await nodeHash(hash, fr);
      sr = await nodeHash(hash, sr);
      while (fn % 2 === 0 && fn !== 0) {
        fn = Math.floor(fn / 2);
        sn = Math.floor(sn / 2);
      }
    } else {
      sr = await nodeHash(sr, hash);
    }
    fn = Math.floor(fn / 2);
    sn = Math.floor(sn / 2);
  }
  return sn === 0 && hex(fr) === hex(bytesOf(oldRoot)) && hex(sr) === hex(bytesOf(newRoot));
}
