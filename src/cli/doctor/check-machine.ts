import type { Facts } from "./facts.ts";
import type { Finding, Found } from "./finding.ts";

/** Checks of the agent itself and of the machine. Pure. */

export function checkAgent({ agent, config }: Facts): readonly Finding[] {
  if (agent.disabled)
    return [
      {
        id: "agent-disabled",
        object: `${config["Lib.Dir"]}/disable_agent`,
        problem: "the agent is told to do nothing",
        reason: "the image or the platform made this file (ProvisionGuestAgent=false)",
        next: "remove it and restart the agent, if the VM is to have extensions",
      },
    ];
  if (agent.pid !== undefined) return [];
  const last = agent.state?.agent;
  const error = agent.errors.at(-1);
  return [
    {
      id: "agent-not-running",
      object: "waagent -daemon",
      problem: "no agent runs",
      reason: [
        last === undefined ? "none has run since boot" : `the last one had pid ${last.pid}`,
        ...(error === undefined ? [] : [`the last error in the log is: ${error}`]),
      ].join("; "),
      next: "start the service, and read its journal when it does not stay up",
    },
  ];
}

export function checkGoalState({ agent }: Facts): Found {
  const goal = agent.state?.goalState;
  if (goal === undefined) return "unseen";
  if (goal.state !== "failed") return [];
  return [
    {
      id: "goal-state-failed",
      object: goal.id,
      problem: "the goal state could not be processed",
      reason: goal.detail ?? "",
      next: `look in the log for the activity ${goal.activityId}`,
    },
  ];
}

/** What the agent says about one of its parts. */
function checkComponent(
  { agent }: Facts,
  component: string,
  tell: (since: string) => Pick<Finding, "id" | "problem" | "next">,
): Found {
  const found = agent.state?.components.find(({ name }) => name === component);
  if (found === undefined) return "unseen";
  if (found.state !== "failed") return [];
  return [{ ...tell(found.since), object: component, reason: found.detail ?? "" }];
}

export function checkStatusUpload(facts: Facts): Found {
  return checkComponent(facts, "status upload", (since) => ({
    id: "status-upload-failed",
    problem: `the platform has not been told the VM's status since ${since}`,
    next: "mend what else is named here; the agent tries again at each period",
  }));
}

/** Absent rules let everybody on the machine talk to the WireServer. */
export function checkFirewallRules(facts: Facts): Found {
  return checkComponent(facts, "firewall", () => ({
    id: "firewall-absent",
    problem: "the rules that keep users from the WireServer are not in force",
    next: "mend what the reason names; the agent tries again by itself",
  }));
}

export function checkProvisioning(facts: Facts): Found {
  return checkComponent(facts, "provisioning", () => ({
    id: "provisioning-failed",
    problem: "the VM has not got all that its owner asked for: name, user, keys",
    next: "mend what the reason names and restart the agent, which goes on from there",
  }));
}

export function checkResourceDisk(facts: Facts): Found {
  return checkComponent(facts, "resource disk", () => ({
    id: "resource-disk-failed",
    problem: "the temporary disk could not be set up",
    next: "mend what the reason names and restart the agent",
  }));
}

const MAX_WARNINGS = 5;

export function checkConfiguration({ configWarnings }: Facts): readonly Finding[] {
  return configWarnings.slice(0, MAX_WARNINGS).map((warning) => ({
    id: "configuration",
    object: "configuration",
    problem: warning,
    reason: "",
    next: "see waagent config check",
  }));
}

export function checkNoExec({ machine, config }: Facts): Found {
  const mount = machine.libMount;
  if (mount === undefined) return "unseen";
  if (!mount.options.includes("noexec")) return [];
  return [
    {
      id: "noexec",
      object: config["Lib.Dir"],
      problem: "programs of extensions cannot be run from there",
      reason: `${mount.mountPoint} (${mount.source}) is mounted with noexec`,
      next: `mount -o remount,exec ${mount.mountPoint} and take noexec out of /etc/fstab, or set Lib.Dir to a place that may hold programs`,
    },
  ];
}

/** Less does not hold a status file of every extension and a package. */
const MIN_BYTES = 16 * 1024 * 1024;
const MIN_INODES = 64;

export function checkSpace({ machine }: Facts): readonly Finding[] {
  return machine.space.flatMap(({ directory, bytes, inodes }): Finding[] => {
    if (bytes >= MIN_BYTES && inodes >= MIN_INODES) return [];
    const isBytes = bytes < MIN_BYTES;
    return [
      {
        id: "disk-full",
        object: directory,
        problem: isBytes ? "the file system is full" : "the file system has no inodes left",
        reason: isBytes
          ? `${Math.floor(bytes / 1024)} KiB are free, ${MIN_BYTES / 1024 / 1024} MiB are needed at least`
          : `${inodes} inodes are free`,
        next: `make room (df -h ${directory}; df -i ${directory})`,
      },
    ];
  });
}
