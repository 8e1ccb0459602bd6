import type { DocumentName } from "./contract.ts";

const BSD =
  "FreeBSD and OpenBSD only; we build for Linux (freebsd-x64 compiles, nobody has run it).";
const OLD_AGENT =
  "A function of the 2.0 agent that 2.15 no longer has, and that we do not bring back.";
const ONE_PROCESS =
  "About the reference's own second process; ours is one, and a service manager restarts it (design D1).";
const NO_DOWNLOADED_AGENTS =
  "Choosing, installing or running agent packages of the platform; they are Python, and we never run, write or delete them (design D6, UPD-30, UPD-31).";
const NEVER_DOWN =
  "How the reference takes the interface down and up again for a new host name. Ours has its DHCP client ask anew and never touches the link (BET-10, BET-11, tested with the real clients).";
const BAKED_IMAGE =
  "Agent packages of the platform in a version pair that only its release process has; they are Python, and we never run, write or delete them (design D6, UPD-30, UPD-31).";
const NO_CONTROLLERS =
  "Needs control groups with a CPU controller under systemd; on test machines the host keeps the controllers to itself.";
const WEAKNESS = "Describes a weakness of the reference that is not to be copied.";

/**
 * Must ids that no test of ours can honestly cite, each with the reason: other systems than Linux, hardware that no test
 * machine has, or words about the reference's own inside. Everything else stays in the figure, also what is not built.
 */
export const LEFT_OUT: Readonly<Record<DocumentName, Readonly<Record<string, string>>>> = {
  "wire-protocol": {
    "WIRE-09": "How the reference shares clients between its threads; not seen by anybody.",
    "GS-12":
      "A second goal state request that comes from how the reference builds its client; nothing needs it.",
    "GS-17":
      "How components of the reference ask for parts of the goal state; ours share one client that has all of it.",
    "HTTP-23":
      "How the reference takes a URL apart before it is put together again; no URL of the platform has a fragment.",
    "ECFG-30":
      "What fails the reference's whole ExtensionsConfig; DB-06 requires that it fails one plugin, which is tested.",
    "FILE-09":
      "The file with every key that the reference leaves behind; DB-09 requires that there is none, which is tested.",
    "HIST-21":
      "What the reference does when its text replacement fails; ours reads the raw text as it goes and cannot fail so (DB-20, tested).",
    "TEL-27":
      "A mode of the reference's event function that, as the row says, its callers do not use; ours has one way.",
    "STAT-32":
      "Waiting for an unreadable status file is not kept (DB-07): a file is read once for each report, and what is said in its place is STAT-33, which is counted.",
    "FAM-03": NO_DOWNLOADED_AGENTS,
    "FAM-04": NO_DOWNLOADED_AGENTS,
    "FAM-05": NO_DOWNLOADED_AGENTS,
    "FAM-06": NO_DOWNLOADED_AGENTS,
    "FAM-07": NO_DOWNLOADED_AGENTS,
  },
  provisioning: {
    "HOST-18": NEVER_DOWN,
    "HOST-19": NEVER_DOWN,
    "HOST-20": NEVER_DOWN,
    "CLI-21": NO_DOWNLOADED_AGENTS,
    "CLI-32":
      "Its limits are LOGC-16, which is counted. It does not look for the platform first: LOGC-06 has it collect first, and the daemon, which sends what became of it, has these fields.",
    "DEPROV-17": BSD,
    "PKG-21":
      "Its lack of RestartSec is not kept: with the endless restarts we want it would spin. The rest of the row is tested without its id.",
    "PKG-41": "An executable cannot be imported as Python source; the README states it as a limit.",
  },
  extensions: {
    "RUN-05": ONE_PROCESS,
    "RUN-07": NO_DOWNLOADED_AGENTS,
    "RUN-08": NO_DOWNLOADED_AGENTS,
    "RUN-09": NO_DOWNLOADED_AGENTS,
    "RUN-10": NO_DOWNLOADED_AGENTS,
    "UPD-01": NO_DOWNLOADED_AGENTS,
    "UPD-03": NO_DOWNLOADED_AGENTS,
    "UPD-04": NO_DOWNLOADED_AGENTS,
    "UPD-06": NO_DOWNLOADED_AGENTS,
    "UPD-07": NO_DOWNLOADED_AGENTS,
    "UPD-08": NO_DOWNLOADED_AGENTS,
    "UPD-09": NO_DOWNLOADED_AGENTS,
    "UPD-10": NO_DOWNLOADED_AGENTS,
    "UPD-11": NO_DOWNLOADED_AGENTS,
    "UPD-12": NO_DOWNLOADED_AGENTS,
    "UPD-13": NO_DOWNLOADED_AGENTS,
    "UPD-14": NO_DOWNLOADED_AGENTS,
    "UPD-15": NO_DOWNLOADED_AGENTS,
    "UPD-35": "An executable cannot be imported as Python source; the README states it as a limit.",
    "UPD-39": "Conditions on an update channel of our own; there is none (design D6).",
    "UPD-40":
      "Conditions on running below the stock Python daemon as one of its packages (option D); not offered.",
    "CG-00": "Measurements for orientation, no behaviour; the bench has ours.",
    "E2E-03":
      "Needs Microsoft's VMAccess package, which only the platform hands out. Protected settings that a package decrypts are EXT-55, counted.",
    "E2E-04": NO_CONTROLLERS,
    "E2E-05": NO_CONTROLLERS,
    "E2E-06": NO_CONTROLLERS,
    "E2E-10":
      "What the portal and CRP make of a VM without an agent. The agent's part is system.md DAEMON-10, which is counted.",
    "E2E-12": BAKED_IMAGE,
    "E2E-13": BAKED_IMAGE,
    "E2E-14": "A check of the platform's own release process; no agent takes part.",
    "E2E-16": BAKED_IMAGE,
    "E2E-17": BAKED_IMAGE,
    "E2E-19": NO_CONTROLLERS,
    "E2E-31":
      "Needs images with FIPS 140-3 switched on in the kernel, and a new PFX from the platform.",
    "E2E-33": BAKED_IMAGE,
    "E2E-34": BAKED_IMAGE,
    "E2E-36": NO_CONTROLLERS,
    "E2E-39":
      "Reverse DNS is Azure's. That DHCP tells it each new name, without the link going down, is tested with the real clients (system.md NET-40).",
    "E2E-40": NEVER_DOWN,
    "E2E-41": "Tests of the reference's own test harness; no product takes part.",
  },
  system: {
    "DAEMON-01": ONE_PROCESS,
    "DAEMON-11": ONE_PROCESS,
    "DAEMON-12": NO_DOWNLOADED_AGENTS,
    "DAEMON-13": ONE_PROCESS,
    "INIT-07":
      "An executable cannot be imported as Python source; the README states it as a limit.",
    "DISK-13": WEAKNESS,
    "DISK-23": WEAKNESS,
    "DISK-30": "OpenWrt only, on which the agent has never been run by us.",
    "DISK-31": BSD,
    "DISK-32": BSD,
    "DISK-33": BSD,
    "DISK-34": "F5 BIG-IP only; no image to try it on.",
    "SWAP-06": WEAKNESS,
    "SWAP-10": BSD,
    "SWAP-11": BSD,
    "SCSI-03": WEAKNESS,
    "SCSI-04": BSD,
    "NET-08": WEAKNESS,
    "NET-10": WEAKNESS,
    "NET-11": BSD,
    "NET-24": WEAKNESS,
    "NET-46": NEVER_DOWN,
    "NET-47": NEVER_DOWN,
    "NET-48": NEVER_DOWN,
    "NET-61": "A helper that nothing in the reference calls.",
    "ENV-07":
      "How the reference brings back a thread that died. Ours are tasks that begin once the platform has answered (GS-19) and that no failure ends (ENV-06); both are counted.",
    "CON-02": "A pointer to LOG-06, which is counted.",
    "LEG-01": OLD_AGENT,
    "LEG-02": OLD_AGENT,
    "LEG-03": OLD_AGENT,
    "LEG-04": OLD_AGENT,
    "LEG-06": OLD_AGENT,
    "VMM-05": OLD_AGENT,
    "MON-15":
      "Then the reference also stops putting extensions into groups, which DB-16 forbids. Ours takes back the quota of its own service, and no more; that is tested as extensions.md CG-40 and CG-41.",
    "LOGC-20": "A consequence of LOGC-19, which is counted.",
    "LOGC-21": "A note on privacy about LOGC-19, which is counted.",
    "THR-01": "The reference's threads; not seen by anybody but in log lines, which LOG-02 has.",
    "THR-02": "The reference's threads; not seen by anybody.",
    "THR-04": "Says that something is not done (no process title).",
    "THR-09": "Measurements of the runtime, no behaviour; the bench has ours.",
    "THR-10": "Facts about the runtime, no behaviour.",
    "THR-11": "Advice about LOGC-10, which is counted.",
    "UTIL-01": "The reference's helper functions; not seen from outside.",
    "UTIL-03": WEAKNESS,
    "UTIL-04": WEAKNESS,
    "UTIL-05":
      "How the reference clears up after a download or unpacking that failed by some errors and not by others. Ours never leaves a part behind, whatever the error (a full disk in each step is tested).",
  },
};
