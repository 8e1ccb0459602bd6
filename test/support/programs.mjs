/**
 * Debian packages that the rooted, end-to-end and packaging tests, the demo and the bench use, in one place. The agent
 * itself needs few of them; a missing one makes tests skip with its name.
 * `a|b`: either will do.
 */
export const DEBIAN_PACKAGES = [
  // What Debian's own agent needs, which the emulated Azure host and the bench are held against. Its package itself is
  // only unpacked in throw-away machines: installed, it would push network-manager out.
  "python3",
  "python3-distro",
  "python3-pkg-resources",
  "python3-setuptools",
  // What a provisioned machine has.
  "openssh-server",
  "openssh-client",
  "openssl",
  "passwd",
  "sudo",
  "util-linux",
  "mount",
  "procps",
  "iproute2",
  "iptables",
  "nftables",
  // The emulated host and its media.
  "dnsmasq-base",
  "isc-dhcp-client",
  "fuseiso",
  "genisoimage",
  "sshpass",
  "busybox|busybox-static",
  // Disks.
  "e2fsprogs",
  "xfsprogs",
  "btrfs-progs",
  "parted",
  "gdisk",
  "fdisk",
  "ntfs-3g",
  "cryptsetup-bin",
  // Packages, archives and proof.
  "zip",
  "unzip",
  "strace",
  "systemd",
  "dbus",
  "rpm",
  "rpmlint",
  "mmdebstrap",
  "systemd-container",
  "squashfs-tools",
  "lintian",
  "logrotate",
  // Runs the packages for arm64. Not qemu-user-static, which makes the kernel run foreign programs by itself.
  "qemu-user",
  "libc6-arm64-cross",
  // Runs the executable for systems with musl, with a libstdc++ made from the one of g++.
  "musl-tools",
  "g++",
];

/**
 * Only where CI says that the machine is its own: at the next boot these would take over a person's network. Tests that
 * need them skip elsewhere.
 */
export const CI_PACKAGES = ["network-manager", "dhcpcd-base", "ifupdown", "firewalld"];
