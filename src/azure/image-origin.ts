import { compareVersions, isVersion } from "../base/version.ts";
import type { Compute } from "./imds.ts";

/**
 * Where the image came from, for telemetry (`wire-protocol.md` IMDS-10..12): 0 unknown, 1 custom, 2 endorsed by the
 * platform, 3 another image of the platform.
 */
export type ImageOrigin = 0 | 1 | 2 | 3;

/** What a level of the table allows for the next key: exact words, the lowest version, or words and then more rules. */
interface Rule {
  readonly exact?: readonly string[];
  readonly minimum?: string;
  /** Keys in upper case. */
  readonly next?: Readonly<Record<string, Rule>>;
}

const RHEL_FOR_WORKLOADS: Rule = { minimum: "6.7" };
const SLES_SPECIAL: Rule = {
  exact: ["11-SP4", "12", "12-SP1", "12-SP2", "12-SP3", "12-SP4", "12-SP5"].concat([
    "15",
    "15-SP1",
    "15-SP2",
    "15-SP3",
    "15-SP4",
    "15-SP5",
  ]),
};

const ENDORSED: Readonly<Record<string, Readonly<Record<string, Rule>>>> = {
  CANONICAL: {
    UBUNTUSERVER: {
      exact: [
        ...[0, 1, 2, 3, 4, 5, 6, 7, 8].map((point) => `14.04.${point}-LTS`),
        ...["16.04-LTS", "16.04.0-LTS", "18.04-LTS", "20.04-LTS", "22.04-LTS"],
      ],
    },
  },
  COREOS: { COREOS: { next: { STABLE: { minimum: "494.4.0" } } } },
  CREDATIV: { DEBIAN: { minimum: "7" } },
  OPENLOGIC: {
    CENTOS: { minimum: "6.3", exact: ["7-LVM", "7-RAW"] },
    "CENTOS-HPC": { minimum: "6.3" },
  },
  REDHAT: {
    RHEL: { minimum: "6.7", exact: ["7-LVM", "7-RAW"] },
    "RHEL-HANA": RHEL_FOR_WORKLOADS,
    "RHEL-SAP": RHEL_FOR_WORKLOADS,
    "RHEL-SAP-APPS": RHEL_FOR_WORKLOADS,
    "RHEL-SAP-HANA": RHEL_FOR_WORKLOADS,
  },
  SUSE: {
    SLES: {
      exact: ["11-SP4", "11-SP5", "11-SP6"].concat([
        "12-SP1",
        "12-SP2",
        "12-SP3",
        "12-SP4",
        "12-SP5",
        "12-SP6",
      ]),
    },
    "SLES-BYOS": SLES_SPECIAL,
    "SLES-SAP": SLES_SPECIAL,
    "SLE-HPC": { exact: ["15-SP1", "15-SP2", "15-SP3", "15-SP4", "15-SP5"] },
  },
};

export function imageOrigin(compute: Compute | undefined): ImageOrigin {
  if (compute === undefined || compute.publisher === null) return 0;
  if (compute.publisher === "") return 1;
  const rule = ENDORSED[compute.publisher.toUpperCase()]?.[compute.offer.toUpperCase()];
  return isEndorsed(rule, [compute.sku, compute.version]) ? 2 : 3;
}

function isEndorsed(rule: Rule | undefined, keys: readonly string[]): boolean {
  const [key, ...rest] = keys;
  if (rule === undefined || key === undefined) return false;
  if (rule.exact?.includes(key) === true) return true;
  if (rule.minimum !== undefined && isVersion(key)) return compareVersions(key, rule.minimum) >= 0;
  return isEndorsed(rule.next?.[key.toUpperCase()], rest);
}
