#!/bin/sh
# Starts the sentinel beside a state server. Its file outlives it on the volume: it holds who the primary is. A sentinel
# without a file asks the others first, and takes the first server for the primary where nobody knows one.
# Reads: REDIS_PASSWORD, REDIS_SERVICE, REDIS_REPLICAS, POD_NAME.
set -eu
conf=/data/sentinel.conf
umask 077
export REDISCLI_AUTH="$REDIS_PASSWORD"
if [ ! -s "$conf" ]; then
  primary=""
  number=0
  while [ "$number" -lt "$REDIS_REPLICAS" ] && [ -z "$primary" ]; do
    answer=$(timeout 1 redis-cli -h "$REDIS_SERVICE-$number.$REDIS_SERVICE" -p 26379 \
      sentinel get-master-addr-by-name primary 2>/dev/null | head -n 1 || true)
    case "$answer" in "$REDIS_SERVICE"-*) primary=$answer ;; esac
    number=$((number + 1))
  done
  if [ -z "$primary" ]; then primary="$REDIS_SERVICE-0.$REDIS_SERVICE"; fi
  # Sentinel takes no name that cannot be resolved, and the first server's may not be known yet.
  until getent hosts "$primary" >/dev/null; do sleep 0.2; done
  {
    echo "port 26379"
    echo "dir /data"
    echo "protected-mode no"
    echo "sentinel resolve-hostnames yes"
    echo "sentinel announce-hostnames yes"
    echo "sentinel announce-ip $POD_NAME.$REDIS_SERVICE"
    echo "sentinel announce-port 26379"
    echo "sentinel monitor primary $primary 6379 2"
    echo "sentinel down-after-milliseconds primary 3000"
    echo "sentinel failover-timeout primary 10000"
    echo "sentinel parallel-syncs primary 1"
  } >"$conf.new"
  mv "$conf.new" "$conf"
fi
# The volume may outlive the password: a flow that was deleted and made again has another one.
grep -v -e '^requirepass ' -e '^sentinel sentinel-pass ' -e '^sentinel auth-pass ' "$conf" >"$conf.new"
{
  echo "requirepass $REDIS_PASSWORD"
  echo "sentinel sentinel-pass $REDIS_PASSWORD"
  echo "sentinel auth-pass primary $REDIS_PASSWORD"
} >>"$conf.new"
mv "$conf.new" "$conf"
exec redis-server "$conf" --sentinel
