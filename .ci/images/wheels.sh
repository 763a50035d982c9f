#!/usr/bin/env bash
# Fill .cache/wheels with the packages of the image's lock, for an image build that reaches no index; a no-op when the
# lock is what it was. Each is checked by its hash here and again inside the build.
set -eu -o pipefail
cd "$(dirname "$0")/../.."
wanted=$(sha256sum requirements.lock | cut -d' ' -f1)
[ "$(cat .cache/wheels/.lock 2>/dev/null)" = "$wanted" ] && exit 0
rm -rf .cache/wheels
mkdir -p .cache/wheels
awk '/^[a-z]/ { keep = $0 !~ /^(temporal|seaweedfs|caddy)-bin==/ } keep' requirements.lock >.cache/image.lock
for try in 1 2 3; do
    if .venv/bin/python -m pip --disable-pip-version-check download --quiet --retries 8 --no-deps --only-binary :all: \
        --require-hashes --requirement .cache/image.lock --dest .cache/wheels; then
        echo "$wanted" >.cache/wheels/.lock
        exit 0
    fi
    [ "$try" = 3 ] || sleep $((try * 5))
done
echo "wheels: the packages of requirements.lock could not be fetched" >&2
exit 1
