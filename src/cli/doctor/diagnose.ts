import { redactLogText } from "../../report/log-redaction.ts";
import type { Facts } from "./facts.ts";
import type { Finding, Found } from "./finding.ts";
import {
  checkCertificates,
  checkCommands,
  checkFailures,
  checkHeartbeats,
  checkPolicy,
  checkStatusFiles,
  checkTimeouts,
} from "./check-handlers.ts";
import {
  checkAgent,
  checkConfiguration,
  checkFirewallRules,
  checkGoalState,
  checkNoExec,
  checkProvisioning,
  checkResourceDisk,
  checkSpace,
  checkStatusUpload,
} from "./check-machine.ts";
import {
  checkClock,
  checkFirewall,
  checkNames,
  checkPlatform,
  checkProxy,
  checkRoute,
  checkSignatures,
  checkStorage,
} from "./check-network.ts";

export interface Check {
  /** What is well when it finds nothing. */
  readonly name: string;
  readonly run: (facts: Facts) => Found;
}

/** In the order in which their findings are told: causes before what they cause. */
export const CHECKS: readonly Check[] = [
  { name: "the agent runs", run: checkAgent },
  { name: "the configuration is understood", run: checkConfiguration },
  { name: "a route leads to the WireServer", run: checkRoute },
  { name: "the firewall lets the agent through", run: checkFirewall },
  { name: "the firewall keeps users from the WireServer, or is off", run: checkFirewallRules },
  { name: "the platform answers", run: checkPlatform },
  { name: "the clock is right", run: checkClock },
  { name: "names are resolved", run: checkNames },
  { name: "the proxy takes requests", run: checkProxy },
  { name: "storage answers", run: checkStorage },
  { name: "permissions for storage are valid", run: checkSignatures },
  { name: "there is room on the disks", run: checkSpace },
  { name: "extensions may be run where they lie", run: checkNoExec },
  { name: "the machine is provisioned", run: checkProvisioning },
  { name: "the resource disk is set up, or not asked for", run: checkResourceDisk },
  { name: "the policy allows the extensions", run: checkPolicy },
  { name: "programs of extensions fit this machine", run: checkCommands },
  { name: "protected settings can be decrypted", run: checkCertificates },
  { name: "commands end in time", run: checkTimeouts },
  { name: "status files can be reported", run: checkStatusFiles },
  { name: "heartbeats are fresh", run: checkHeartbeats },
  { name: "the goal state is processed", run: checkGoalState },
  { name: "the status is uploaded", run: checkStatusUpload },
];

export interface Diagnosis {
  readonly findings: readonly Finding[];
  /** Names of checks that saw all they look at and found nothing. */
  readonly well: readonly string[];
  readonly unseen: readonly string[];
}

/** What extensions and other programs say is quoted, and they may say anything. */
function withoutSecrets(finding: Finding): Finding {
  const { object, problem, reason, next } = finding;
  return {
    id: finding.id,
    object: redactLogText(object),
    problem: redactLogText(problem),
    reason: redactLogText(reason),
    next: redactLogText(next),
  };
}

/** Pure. */
export function diagnose(facts: Facts): Diagnosis {
  const results = CHECKS.map(({ name, run }) => ({ name, found: run(facts) }));
  const findings = results.flatMap(({ found }) => (found === "unseen" ? [] : found));
  const failures = checkFailures(facts, new Set(findings.map(({ object }) => object)));
  return {
    findings: [...findings, ...failures].map(withoutSecrets),
    well: results
      .filter(({ found }) => found !== "unseen" && found.length === 0)
      .map(({ name }) => name),
    unseen: [...new Set(facts.unseen)],
  };
}
