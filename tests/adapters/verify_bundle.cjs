// Usage: node verify_bundle.cjs BUNDLE PUBLIC_KEY MANIFEST; the packages lie below the working directory.
const fs = require('fs');
const crypto = require('crypto');
const { createRequire } = require('module');
const load = createRequire(process.cwd() + '/');
const { bundleFromJSON } = load('@sigstore/bundle');
const { Verifier, toSignedEntity, toTrustMaterial } = load('@sigstore/verify');
const { TrustedRoot } = load('@sigstore/protobuf-specs');

const [bundlePath, keyPath, manifestPath] = process.argv.slice(2);
const bundle = bundleFromJSON(JSON.parse(fs.readFileSync(bundlePath)));
const publicKey = crypto.createPublicKey(fs.readFileSync(keyPath));
const spki = publicKey.export({ type: 'spki', format: 'der' });
const expected = crypto.createHash('sha256').update(spki).digest('base64');
const trust = toTrustMaterial(
  TrustedRoot.fromJSON({ mediaType: 'application/vnd.dev.sigstore.trustedroot+json;version=0.1' }),
  (hint) => {
    if (hint !== expected) throw new Error('unknown key hint');
    return { publicKey, validFor: () => true };
  },
);
const thresholds = { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0 };
new Verifier(trust, thresholds).verify(toSignedEntity(bundle));
const statement = JSON.parse(bundle.content.dsseEnvelope.payload);
const digest = crypto.createHash('sha256').update(fs.readFileSync(manifestPath)).digest('hex');
if (!statement.subject.some((one) => one.digest.sha256 === digest)) throw new Error('another artifact');
console.log('verified ' + statement.predicateType);
