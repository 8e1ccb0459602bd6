#!/bin/sh
# One booted machine (see machine.ts). Runs as root in an own mount namespace. When nobody has the pipe FOLDER/alive
# open for writing any more it ends, and takes the machine, its loop devices, control groups and FOLDER with it.
#   machine-init.sh FOLDER LOWER NETWORK-NAMESPACE NAME "HIERARCHY..."
# FOLDER has upper/, work/, root/ and disks: one line per disk, "dvd|resource IMAGE".
# Every start of a boot adds the pid of systemd-nspawn to FOLDER/boots.
set -eu
folder=$1 lower=$2 network=$3 name=$4

groups=
for hierarchy in $5; do groups="$groups $hierarchy/$name"; done

loops= loop_of_boots=
finish() {
    set +e
    echo ended >>"$folder/boots"
    [ -z "$loop_of_boots" ] || kill -KILL "$loop_of_boots"
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        pids=$(find $groups -name cgroup.procs -exec cat {} +)
        [ -n "$pids" ] || break
        kill -KILL $pids
        sleep 0.05
    done
    for group in $groups; do find "$group" -depth -type d -exec rmdir {} +; done
    cd /
    umount -l "$folder/root"
    for loop in $loops; do
        partx --delete "$loop"
        losetup --detach "$loop"
    done
    case $folder in
    */dist/boot/machine-*) rm -rf --one-file-system "$folder" ;;
    esac
} 2>/dev/null
trap finish EXIT

mount --make-rprivate /
mount -t overlay -o "lowerdir=$lower,upperdir=$folder/upper,workdir=$folder/work" overlay "$folder/root"
# The numbers are those of this boot of the host, so the nodes are made inside at every boot.
node() { stat -c "$1 %Hr %Lr" "$2" >>"$folder/root/etc/test-devices"; }
while read -r disk image; do
    case $disk in
    dvd)
        loop=$(losetup --find --show --read-only "$image")
        loops="$loops $loop"
        node sr0 "$loop"
        ;;
    resource)
        # Under the kernel's own name, which sysfs shows. partx for a kernel that reads no partition tables.
        loop=$(losetup --find --show --partscan "$image")
        loops="$loops $loop"
        [ -e "${loop}p1" ] || partx --add "$loop"
        node "${loop#/dev/}" "$loop"
        node "${loop#/dev/}p1" "${loop}p1"
        echo "${loop#/dev/}" >"$folder/root/etc/test-resource"
        ;;
    esac
done <"$folder/disks"

# sysfs shows the network namespace that nspawn was started in, so it is started in the right one.
# Two systemds below one group would manage each other's slices.
boot() {
    sh -c 'for group in $1; do mkdir -p "$group"; echo $$ >"$group/cgroup.procs"; done
        exec nsenter "--net=$4" env SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn -q -D "$2/root" --boot --keep-unit --register=no \
            --machine="$3" --network-namespace-path="$4" --console=pipe --link-journal=no --resolv-conf=off \
            --timezone=off --capability=all' sh "$groups" "$folder" "$name" "$network" </dev/null >>"$folder/console" 2>&1 &
    nspawn=$!
    echo "$nspawn" >>"$folder/boots"
    wait "$nspawn"
}
(
    # 133: the machine asked for a reboot.
    while code=0; boot || code=$?; [ "$code" -eq 133 ]; do :; done
    echo ended >>"$folder/boots"
) &
loop_of_boots=$!
read -r _ <"$folder/alive" || true
