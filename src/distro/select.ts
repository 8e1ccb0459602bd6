import type { DistroRow, Release } from "./distro.ts";
import { rowOf } from "./rows.ts";
import { compareDistroVersions } from "./version-order.ts";

export interface Selection {
  /** Name of the adapter as it is reported and logged. */
  readonly adapter: string;
  /** The adapter whose facts apply; differs from `adapter` only for a distribution that no rule names. */
  readonly facts: string;
  readonly known: boolean;
}

const RED_HAT_FAMILY = ["redhat", "rhel", "centos", "oracle", "almalinux", "cloudlinux", "rocky"];
const SUSE_FAMILY = ["suse", "sle-micro", "sle_hpc", "sles", "opensuse"];
const SAME_NAME: Readonly<Record<string, string>> = {
  freebsd: "FreeBSD",
  openbsd: "OpenBSD",
  bigip: "BigIp",
  gaia: "Gaia",
  iosxe: "IosXE",
  nsbsd: "NSBSD",
  openwrt: "OpenWRT",
  fedora: "Fedora",
  mariner: "Mariner",
  azurelinux: "Mariner",
  photonos: "Photon",
  arch: "Arch",
  alpine: "Alpine",
  alpaquita: "Alpine",
  chainguard: "Chainguard",
  kali: "DebianBase",
  euleros: "RedHat7",
  uos: "RedHat7",
};

/** The first rule of `provisioning.md` DIST-10..24 that fits. Pure. */
export function selectAdapter(release: Release): Selection {
  const named = namedAdapter(release);
  if (named !== undefined) return { adapter: named, facts: named, known: true };
  return { adapter: "Default", facts: relativeOf(release), known: false };
}

/** The row of the selected adapter, before capabilities are applied. Pure. */
export function selectRow(release: Release): DistroRow & { readonly known: boolean } {
  const selection = selectAdapter(release);
  return {
    ...rowOf(selection.facts),
    adapter: selection.adapter,
    known: selection.known,
    ...(release.name === "ubuntu" && older(release, "18.04")
      ? { resolver: "remove-resolvconf" }
      : {}),
    ...(release.name === "flatcar" && !older(release, "3550") ? FLATCAR : {}),
  };
}

/** `system.md` PKG-10: /usr cannot be written, and its sshd takes drop-ins, so that the file is ours to add to. */
const FLATCAR = {
  unitDirectory: "/etc/systemd/system",
  editSshdConfig: true,
} as const satisfies Partial<DistroRow>;

function namedAdapter(release: Release): string | undefined {
  const { name, version, fullName, codeName } = release;
  if (name === "photonos" || name === "arch") return SAME_NAME[name];
  if (fullName.includes("Clear Linux")) return "Clear";
  if (name === "ubuntu") return ubuntuAdapter(release);
  if (name === "alpine" || name === "alpaquita" || name === "chainguard" || name === "kali") {
    return SAME_NAME[name];
  }
  if ([name, codeName].some((word) => word === "flatcar" || word === "coreos")) return "CoreOS";
  if (SUSE_FAMILY.includes(name)) {
    const limit =
      fullName === "SUSE Linux Enterprise Server"
        ? "12"
        : fullName === "openSUSE"
          ? "13.2"
          : undefined;
    return limit !== undefined && older(release, limit) ? "SUSE11" : "SUSE";
  }
  if (name === "debian") {
    return version.includes("sid") || !older(release, "7", "same is older")
      ? "DebianModern"
      : "DebianBase";
  }
  if (name === "devuan") return older(release, "4") ? undefined : "Devuan";
  if (RED_HAT_FAMILY.includes(name)) {
    if (older(release, "7")) return "RedHat6";
    return older(release, "8.6") ? "RedHat7" : "RedHatModern";
  }
  return Object.hasOwn(SAME_NAME, name) ? SAME_NAME[name] : undefined;
}

function ubuntuAdapter(release: Release): string {
  const { version, fullName } = release;
  if (["12.04", "12.10"].includes(version)) return "Ubuntu12";
  if (["14.04", "14.10"].includes(version)) return "Ubuntu14";
  if (["16.04", "16.10", "17.04"].includes(version)) return "Ubuntu16";
  if (
    compareDistroVersions(version, "18.04") >= 0 &&
    compareDistroVersions(version, "24.04") <= 0
  ) {
    return "Ubuntu18";
  }
  return fullName === "Snappy Ubuntu Core" ? "Snappy" : "UbuntuOther";
}

/** A release without a version is taken as current: only a number can say that something is old. */
function older(
  release: Release,
  limit: string,
  equal: "same is older" | "same is not" = "same is not",
) {
  if (release.version === "") return false;
  const difference = compareDistroVersions(release.version, limit);
  return difference < 0 || (equal === "same is older" && difference === 0);
}

/** Distributions that no rule names borrow the facts of what they say they are like (DB-16). */
const RELATIVES: readonly (readonly [RegExp, string])[] = [
  [/^devuan$/, "Devuan"],
  [/^(rhel|centos|almalinux|rocky|oracle|ol)$/, "RedHatModern"],
  [/^(fedora|amzn)$/, "Fedora"],
  [/^(suse|sles|opensuse.*|sl-micro|sle.*)$/, "SUSE"],
  [/^ubuntu$/, "UbuntuOther"],
  [/^debian$/, "DebianModern"],
  [/^arch$/, "Arch"],
  [/^(alpine|wolfi|postmarketos)$/, "Alpine"],
  [/^(mariner|azurelinux)$/, "Mariner"],
  [/^(flatcar|coreos)$/, "CoreOS"],
  [/^openwrt$/, "OpenWRT"],
];

function relativeOf(release: Release): string {
  for (const word of [release.name, ...release.like]) {
    const relative = RELATIVES.find(([pattern]) => pattern.test(word));
    if (relative !== undefined) return relative[1];
  }
  return "Default";
}
