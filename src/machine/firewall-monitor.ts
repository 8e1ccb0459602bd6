import { describe } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import type { System } from "../system/system.ts";
import { firstLook, LOOK_PERIOD_MS, lookAgain, type Starts } from "./process-starts.ts";
import {
  chooseFirewallTool,
  type FirewallOptions,
  firewallRules,
  type FirewallTool,
  setUpFirewall,
} from "./firewall.ts";

/** Seconds between two checks are in this key (`system.md` ENV-03). */
export const FIREWALL_PERIOD = "OS.EnableFirewallPeriod" satisfies keyof Config;

/** What the check remembers; start with `initialFirewallState`. */
export interface FirewallState {
  readonly tool: FirewallTool | undefined;
  /** Reference counts that stand for the rules; undefined when the kernel does not show the telling ones. */
  readonly counts: string | undefined;
  /** Programs started since the rules were listed, where there are no counts. */
  readonly starts: Starts | undefined;
  /** `clock.monotonic()` of the last check, whether it listed or not. */
  readonly checkedAt: number | undefined;
  /** `clock.monotonic()` of the last check that really listed the rules; undefined before the first. */
  readonly listedAt: number | undefined;
  /** Address of the rules that were listed. */
  readonly address: string | undefined;
  /** After a roll-back nothing is tried before this instant of `clock.monotonic()`. */
  readonly heldUntil: number;
  /** Why the rules are not in force; undefined when they are, or before the first check. */
  readonly trouble: string | undefined;
  readonly reports: Reports;
}

interface Reports {
  readonly count: number;
  /** Instant of the last one that was made. */
  readonly at: number;
}

export const initialFirewallState: FirewallState = {
  tool: undefined,
  counts: undefined,
  starts: undefined,
  checkedAt: undefined,
  listedAt: undefined,
  address: undefined,
  heldUntil: 0,
  trouble: undefined,
  reports: { count: 0, at: 0 },
};

export interface FirewallCheck extends FirewallOptions {
  /** Address of the WireServer; 0 as user id is root. */
  readonly address: string;
  readonly userId: number;
  /** ms between two checks. Runs in between only look at what is started. Default: every run checks. */
  readonly periodMs?: number;
}

/** How long to sleep after a run: until the next check, or the next look where looks are needed. */
export function firewallPause(state: FirewallState, periodMs: number): number {
  return state.starts === undefined ? periodMs : Math.min(periodMs, LOOK_PERIOD_MS);
}

const HOUR_MS = 3_600_000;
const SILENCE_MS = 12 * HOUR_MS;
const FREE_REPORTS = 3;
/** Evidence is believed for this long; then the rules are listed again whatever it says. */
const LISTING_PERIOD_MS = HOUR_MS;
const HOLD_MS = HOUR_MS;

/** Kernel modules that our rules use; each use counts in the module's reference count. */
const MODULES = [
  "ip_tables",
  "iptable_security",
  "nf_tables",
  "nft_chain_filter",
  "nft_compat",
  "nft_counter",
  "nft_ct",
  "x_tables",
  "xt_conntrack",
  "xt_owner",
  "xt_tcpudp",
] as const;
/** Without these counts a rule could go without a trace: the owner match, or nft's own conntrack expression. */
const TELLING: Readonly<Record<FirewallTool["kind"], readonly string[]>> = {
  iptables: ["xt_owner", "xt_conntrack"],
  nft: ["nft_ct"],
};

/**
 * The periodic check (`extensions.md` FW-09, `system.md` FW-02): right rules are left alone, wrong or absent ones are
 * replaced. The first three messages are told as event `ResetFirewall`, then one in 12 h.
 *
 * Listing rules takes a program, and an idle agent runs none. So between two listings the reference counts of the
 * kernel modules behind the rules stand for them: a rule that goes takes its counts along (seen on 6.1 with nft and
 * both kinds of iptables). What leaves no trace there, such as a bare ACCEPT that legacy iptables puts before ours, is
 * found by the listing that happens once in an hour in any case.
 *
 * Where the kernel has the modules built in there are no counts, and without native calls nothing else tells of the
 * rules themselves. There it counts whether any program was started on the machine: rules are changed by programs, and
 * while none is started they stay as they are. A start makes the next check list. A service that changes rules without
 * starting anything is what the hourly listing is for.
 */
export async function checkFirewall(
  system: Pick<System, "exec" | "log" | "clock" | "files" | "emit">,
  config: Pick<Config, "OS.EnableFirewall" | "Firewall.CoverForwarded">,
  state: FirewallState,
  check: FirewallCheck,
): Promise<FirewallState> {
  if (!config["OS.EnableFirewall"]) return state;
  const now = system.clock.monotonic();
  if (now < state.heldUntil) return state;
  const starts = state.starts === undefined ? undefined : lookAgain(system, state.starts);
  const { checkedAt, listedAt } = state;
  const isSame = state.address === check.address;
  const isDue = checkedAt === undefined || now - checkedAt >= (check.periodMs ?? 0);
  if (isSame && starts !== undefined && !isDue) return { ...state, starts };
  const isUnchanged =
    state.counts === undefined
      ? starts?.foreign === false
      : state.counts === telling(system, state.tool);
  if (isSame && isUnchanged && listedAt !== undefined && now - listedAt < LISTING_PERIOD_MS)
    return { ...state, starts, checkedAt: now };

  const { address } = check;
  let next: FirewallState = {
    ...state,
    address,
    listedAt: now,
    checkedAt: now,
    trouble: undefined,
  };
  const before = firstLook(system);
  const counted = countRuns(system.exec);
  try {
    const rules = firewallRules(config, check.address, check.userId);
    const watched = { ...system, exec: counted.exec };
    const tool = state.tool ?? (await chooseFirewallTool(watched));
    next = { ...next, tool };
    const outcome = await setUpFirewall(watched, tool, rules, { probe: check.probe });
    if (outcome.result === "applied")
      next = report(
        system,
        next,
        outcome.before === "absent",
        outcome.before === "absent"
          ? `Set up the firewall for ${rules.address} with ${tool.kind}`
          : `The firewall rules for ${rules.address} were inconsistent; they have been replaced`,
      );
    if (outcome.result === "rolled-back") {
      const trouble = `With the firewall rules the agent itself could not reach ${rules.address}; they were removed again and will be tried again in an hour`;
      next = report(system, { ...next, heldUntil: now + HOLD_MS, trouble }, false, trouble);
    }
    const counts = telling(system, tool);
    // A program of somebody else that ran meanwhile may have changed what was listed before it did.
    const after =
      counts === undefined && before !== undefined
        ? lookAgain(system, before, counted.runs())
        : undefined;
    return { ...next, counts, starts: after };
  } catch (error) {
    const trouble = `Could not check the firewall: ${describe(error)}`;
    next = report(system, { ...next, trouble }, false, trouble);
    // The tool may have been installed, removed or exchanged: choose again next time.
    return { ...next, tool: undefined, counts: undefined, starts: undefined };
  }
}

function report(
  system: Pick<System, "emit" | "log" | "clock">,
  state: FirewallState,
  success: boolean,
  message: string,
): FirewallState {
  const now = system.clock.monotonic();
  const { count, at } = state.reports;
  if (count >= FREE_REPORTS && now - at < SILENCE_MS) return state;
  if (success) system.log.info(message);
  else system.log.warning(message);
  system.emit({ operation: "ResetFirewall", success, message, log: false });
  return { ...state, reports: { count: count + 1, at: now } };
}

/** Reference counts that our rules are part of; undefined when the kernel does not show the telling ones. */
function telling(
  system: Pick<System, "files">,
  tool: FirewallTool | undefined,
): string | undefined {
  if (tool === undefined) return undefined;
  const counts = MODULES.flatMap((name) => {
    const count = system.files.readTextIfExists(`/sys/module/${name}/refcnt`)?.trim();
    return count === undefined ? [] : [`${name}=${count}`];
  });
  const shown = (name: string): boolean => counts.some((entry) => entry.startsWith(`${name}=`));
  return TELLING[tool.kind].every(shown) ? counts.join(" ") : undefined;
}

function countRuns(exec: System["exec"]): {
  readonly exec: System["exec"];
  readonly runs: () => number;
} {
  let runs = 0;
  return {
    exec: {
      find: (program) => exec.find(program),
      run: (command) => {
        runs += 1;
        return exec.run(command);
      },
    },
    runs: () => runs,
  };
}
