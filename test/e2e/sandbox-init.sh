#!/bin/sh
# The namespaces of one sandbox (see sandbox.ts). Runs as root in an own mount namespace, so nothing here is
# visible on the machine. Ends, and takes everything with it, when standard input closes.
#   BINDS="FROM TAB TO TAB ro|rw NEWLINE ..." sandbox-init.sh holder SCRATCH pair|none
set -eu
mode=$1 scratch=$2

# Host pid of this shell: /proc is still the machine's, whatever pid namespace we are in.
host_pid() { read -r pid _ </proc/self/stat; }

case $mode in
holder)
    mount --make-rprivate /
    mount -t tmpfs -o mode=0755 tmpfs "$scratch"
    mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
    chmod 0755 "$scratch/upper"
    set -- "$0" "$scratch" "$3"
    jobs=
    if [ "$3" = pair ]; then
        unshare --net --pid --fork --kill-child=KILL /bin/sh "$1" platform "$2" </dev/null &
        jobs=$!
    fi
    unshare --mount --propagation private --net --pid --uts --ipc --fork --kill-child=KILL \
        /bin/sh "$1" guest "$2" </dev/null &
    jobs="$jobs $!"
    exec >/dev/null
    read -r _ || true
    for job in $jobs; do kill -KILL "$job" 2>/dev/null || true; done
    wait 2>/dev/null || true
    cd /
    umount -l "$2"
    case $2 in
    */waagent-sandbox-*/fs) rm -rf --one-file-system "${2%/fs}" ;;
    esac
    ;;
platform)
    ip link set lo up
    host_pid
    echo "platform $pid"
    exec >/dev/null 2>&1
    while :; do sleep 86400 & wait $!; done
    ;;
guest)
    host_pid
    root=$scratch/root
    mount -t overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work,redirect_dir=off,metacopy=off,index=off" \
        overlay "$root"
    mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
    mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
    mount -t tmpfs -o mode=0755,nosuid tmpfs "$root/dev"
    mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs "$root/run"
    mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/tmp"
    umask 0
    for node in null:3 zero:5 full:7 random:8 urandom:9; do
        mknod -m 0666 "$root/dev/${node%:*}" c 1 "${node#*:}"
    done
    mknod -m 0666 "$root/dev/tty" c 5 0
    umask 022
    mkdir "$root/dev/pts" "$root/dev/shm" "$root/run/lock" "$root/run/sshd" "$root/run/old"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$root/dev/pts"
    mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    for n in 0:stdin 1:stdout 2:stderr; do ln -s "fd/${n%:*}" "$root/dev/${n#*:}"; done
    # What a machine that already runs an agent or sshd has and a fresh VM has not.
    rm -rf "$root"/var/lib/waagent/* "$root"/var/log/waagent.log* "$root/var/log/azure" "$root"/etc/ssh/ssh_host_*
    printf '%s' "${BINDS:-}" | while IFS="$(printf '\t')" read -r from to access; do
        if [ -d "$from" ]; then mkdir -p "$root$to"; else
            mkdir -p "$root${to%/*}"
            [ -e "$root$to" ] || : >"$root$to"
        fi
        mount --bind "$from" "$root$to"
        mount -o "remount,bind,$access" "$root$to"
    done
    hostname localhost
    cd "$root"
    pivot_root . run/old
    cd /
    umount -l /run/old
    rmdir /run/old
    ip link set lo up
    echo "guest $pid"
    exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /bin/sh -c \
        'exec >/dev/null 2>&1; while :; do sleep 86400 & wait $!; done'
    ;;
esac
