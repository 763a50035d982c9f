// Usage: node verify_logged.cjs BUNDLE PUBLIC_KEY MANIFEST TRUSTED_ROOT; the packages lie below the working directory.
const fs = require('fs');
const crypto = require('crypto');
const { createRequire } = require('module');
const load = createRequire(process.cwd() + '/');
const { bundleFromJSON } = load('@sigstore/bundle');
const { Verifier, toSignedEntity, toTrustMaterial } = load('@sigstore/verify');
const { TrustedRoot } = load('@sigstore/protobuf-specs');

const [bundlePath, keyPath, manifestPath, rootPath] = process.argv.slice(2);
const bundle = bundleFromJSON(JSON.parse(fs.readFileSync(bundlePath)));
const publicKey = crypto.createPublicKey(fs.readFileSync(keyPath));
const spki = publicKey.export({ type: 'spki', format: 'der' });
const expected = crypto.createHash('sha256').update(spki).digest('base64');
const trust = toTrustMaterial(
  TrustedRoot.fromJSON(JSON.parse(fs.readFileSync(rootPath))),
  (hint) => {
    if (hint !== expected) throw new Error('unknown key hint');
    return { publicKey, validFor: () => true };
  },
);
const thresholds = { tlogThreshold: 1, ctlogThreshold: 0, timestampThreshold: 1 };
new Verifier(trust, thresholds).verify(toSignedEntity(bundle));
const statement = JSON.parse(bundle.content.dsseEnvelope.payload);
const digest = crypto.createHash('sha256').update(fs.readFileSync(manifestPath)).digest('hex');
if (!statement.subject.some((one) => one.digest.sha256 === digest)) throw new Error('another artifact');
console.log('verified ' + statement.predicateType);
