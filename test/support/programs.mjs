/**
 * Debian packages that the rooted, end-to-end and packaging tests, the demo and the bench use, in one place. The agent
 * itself needs few of them; a missing one makes tests skip with its name.
 */
export const DEBIAN_PACKAGES = [
  // The reference agent that the emulated Azure host and the bench are held against, and what it forgets to ask for.
  "waagent",
  "python3-distro",
  "python3-setuptools",
  // What a provisioned machine has.
  "openssh-server",
  "openssh-client",
  "openssl",
  "passwd",
  "sudo",
  "util-linux",
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
  "busybox",
  // Disks.
  "e2fsprogs",
  "xfsprogs",
  "btrfs-progs",
  "parted",
  "gdisk",
  "fdisk",
  // Packages, archives and proof.
  "zip",
  "unzip",
  "strace",
  "systemd",
  "rpm",
  "squashfs-tools",
  "lintian",
  "logrotate",
];
