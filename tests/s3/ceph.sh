#!/bin/bash
# A Ceph object gateway on loopback, from Debian's packages: one monitor, one manager, one OSD in memory, one gateway.
#
#   tests/s3/ceph.sh start FOLDER [PORT]    installs what is missing (as root), starts, and writes FOLDER/environment
#   tests/s3/ceph.sh stop FOLDER
#
# Needs no systemd. Everything is in FOLDER, and nothing survives `stop`: it is for tests.
set -euo pipefail

action=${1:?start or stop}
folder=$(realpath -m "${2:?a folder}")
port=${3:-7480}
access=strongroom-test secret=strongroom-test-secret

stop() {
    # Only what this folder's own pid files name.
    for file in "$folder"/run/*.pid; do
        [ -e "$file" ] && kill "$(cat "$file")" 2>/dev/null || true
    done
    rm -rf "$folder"
}

if [ "$action" = stop ]; then
    stop
    exit
fi

if ! command -v radosgw ceph-mon ceph-mgr ceph-osd > /dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        ceph-mon ceph-mgr ceph-osd ceph-common radosgw > /dev/null
fi

[ -e "$folder" ] && stop
mkdir -p "$folder"/{run,log,mon,mgr,osd,rgw}
cd "$folder"
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
monitor=$(free_port)
fsid=$(cat /proc/sys/kernel/random/uuid)

cat > ceph.conf <<END
[global]
fsid = $fsid
mon host = v1:127.0.0.1:$monitor
public network = 127.0.0.0/8
ms bind msgr2 = false
keyring = $folder/keyring
run dir = $folder/run
log file = $folder/log/\$name.log
admin socket = $folder/run/\$name.asok
pid file = $folder/run/\$name.pid
mon data = $folder/mon
mgr data = $folder/mgr
osd data = $folder/osd
rgw data = $folder/rgw
osd objectstore = memstore
memstore device bytes = 8589934592
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 1000
mgr initial modules =
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:$port
rgw relaxed s3 bucket names = false
END
export CEPH_CONF="$folder/ceph.conf"

ceph-authtool --create-keyring keyring --gen-key -n mon. --cap mon 'allow *' > /dev/null
ceph-authtool keyring --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' > /dev/null
ceph-authtool keyring --gen-key -n mgr.x --cap mon 'allow profile mgr' --cap osd 'allow *' > /dev/null
ceph-authtool keyring --gen-key -n osd.0 --cap mon 'allow profile osd' --cap mgr 'allow profile osd' --cap osd 'allow *' > /dev/null
ceph-authtool keyring --gen-key -n client.rgw --cap mon 'allow rwx' --cap osd 'allow rwx' --cap mgr 'allow rw' > /dev/null

monmaptool --create --clobber --fsid "$fsid" --addv a "[v1:127.0.0.1:$monitor]" monmap > /dev/null
ceph-mon --mkfs -i a --monmap monmap --keyring keyring
ceph-mon -i a
ceph auth import -i keyring 2> /dev/null
ceph-mgr -i x
osd=$(cat /proc/sys/kernel/random/uuid)
ceph osd new "$osd" 0 > /dev/null
ceph-osd -i 0 --mkfs --osd-uuid "$osd" > /dev/null 2>&1
ceph-osd -i 0 > /dev/null 2>&1
radosgw -n client.rgw

for _ in $(seq 120); do
    python3 - "$port" <<'END' 2> /dev/null && break
import sys, urllib.request
urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/", timeout=1)
END
    sleep 0.5
done
radosgw-admin -n client.rgw user create --uid strongroom --display-name strongroom \
    --access-key "$access" --secret-key "$secret" > /dev/null

cat > environment <<END
export STRONGROOM_TEST_S3=http://127.0.0.1:$port STRONGROOM_TEST_S3_NAME=ceph STRONGROOM_TEST_S3_LACKS=conditions,checksums,regions,kms
export AWS_ACCESS_KEY_ID=$access AWS_SECRET_ACCESS_KEY=$secret AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
END
echo "Ceph's gateway: source $folder/environment"
