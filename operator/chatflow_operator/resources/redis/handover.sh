#!/bin/sh
# Runs before a state server is stopped: a primary under Sentinel hands its place to a replica and waits until it has.
set -eu
if [ "$REDIS_REPLICAS" -le 1 ]; then exit 0; fi
export REDISCLI_AUTH="$REDIS_PASSWORD"
if [ "$(redis-cli role | head -n 1)" != master ]; then exit 0; fi
# The old primary keeps its role for some ten seconds after the failover: what it acknowledged then would be lost.
redis-cli client pause 20000 write >/dev/null
# The sentinel of this pod is being stopped as well: another one does it.
ask() { # number of a sentinel, command...
  host="$REDIS_SERVICE-$1.$REDIS_SERVICE"
  shift
  timeout 2 redis-cli -h "$host" -p 26379 "$@" || true
}
answer=""
# One that has noticed a stall of its own ("tilt") says OK and does nothing for half a minute: it is asked last.
for wanted in "sentinel_tilt:0" "sentinel_tilt:1"; do
  number=0
  while [ "$number" -lt "$REDIS_REPLICAS" ] && [ "$answer" != OK ]; do
    if [ "$REDIS_SERVICE-$number" != "$POD_NAME" ] && ask "$number" info sentinel | grep -q "^$wanted"; then
      answer=$(ask "$number" sentinel failover primary)
    fi
    number=$((number + 1))
  done
done
if [ "$answer" != OK ]; then
  redis-cli client unpause >/dev/null
  exit 0
fi
tries=0
while [ "$(redis-cli role | head -n 1)" = master ] && [ "$tries" -lt 80 ]; do
  tries=$((tries + 1))
  sleep 0.25
done
