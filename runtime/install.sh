#!/bin/sh
# For the Dockerfile: installs into /opt/chatflow what locks/NAME.txt pins (`locked NAME`), or the folders that were copied
# into the working directory (`own`).
set -eu
case "$1" in
  locked) /build/bin/pip --python /opt/chatflow/bin/python install --quiet --require-hashes -r "locks/$2.txt" ;;
  own)
    /build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels .
    /build/bin/pip --python /opt/chatflow/bin/python install --quiet --no-deps /wheels/*.whl
    ;;
esac
