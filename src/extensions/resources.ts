import { describe, isAgentError } from "../base/error.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import {
  AZURE_SLICE,
  directoryOf,
  EXTENSIONS_SLICE,
  findCgroupTree,
  serviceDirectory,
  sliceOf,
  type CgroupTree,
} from "./cgroup-tree.ts";
import {
  hasProcesses,
  isHourly,
  measure,
  type CpuSample,
  type MeasuredGroup,
  type UsageMetric,
} from "./cgroup-usage.ts";
import type { HandlerManifest, Limits } from "./handler-manifest.ts";
import type { ResourceControl } from "./work.ts";
import type { Isolation } from "./invocation.ts";
import { displayName, type HandlerRef } from "./layout.ts";

/**
 * Control groups for extensions: every command in a scope or group of its own, limits that its package asks for, and
 * what it uses (`extensions.md` §16). Nothing here ever fails an extension (CG-42).
 */
export interface Resources {
  readonly isolation: Isolation;
  readonly limits: ResourceControl;
  /** Slices that must be there, and leftovers of older agents that must not; once at start. */
  prepare(): void;
  /** Whether commands get a scope of their own now; false also while that is paused. */
  isolates(): boolean;
  /** Usage of what is tracked, for telemetry (CG-35). */
  sample(): Promise<readonly UsageMetric[]>;
}

export interface ResourcesOptions {
  readonly systemd: boolean;
  readonly unitDirectory: SystemPath;
  /** Name of the agent's own service, whose drop-ins of older agents go; undefined without. */
  readonly agentService?: string;
  /** Hold packages to the memory they ask for; version 2 only (DB-18). Default false. */
  readonly enforceMemory?: boolean;
  /** Processes and threads of one extension at a time; 0 leaves it to systemd, whose scopes have a limit. */
  readonly tasksMax?: number;
}

const PAUSE_MS = 10 * 60_000;
const HOUR_MS = 3600_000;
const TIMEOUT_MS = 30_000;
const MIB = 1024 * 1024;
/** Reclaim begins before the limit at which the kernel kills. */
const MEMORY_HIGH_SHARE = 0.9;
/** Where `set-property --runtime` leaves what was set, until the next boot. */
const RUNTIME_DROP_INS = "/run/systemd/system.control";
/** Of older agents, for the agent's service and for services of extensions (CG-11, CG-21). */
const LEGACY_DROP_INS = ["11-CPUAccounting.conf", "12-CPUQuota.conf", "13-MemoryAccounting.conf"];

const UNITS: readonly (readonly [name: string, text: string])[] = [
  [
    AZURE_SLICE,
    "[Unit]\nDescription=Slice for Azure VM Agent and Extensions\nDefaultDependencies=no\nBefore=slices.target\n",
  ],
  [
    EXTENSIONS_SLICE,
    "[Unit]\nDescription=Slice for Azure VM Extensions\nDefaultDependencies=no\nBefore=slices.target\n[Slice]\nCPUAccounting=yes\nMemoryAccounting=yes\n",
  ],
];

export function createResources(system: System, options: ResourcesOptions): Resources {
  const tree = findCgroupTree(system, options);
  const log = system.log;
  let pausedUntil = 0;
  const applied = new Map<string, string>();
  const tracked = new Map<string, MeasuredGroup>();
  const samples = new Map<string, CpuSample>();
  let lastHourly = Number.NEGATIVE_INFINITY;

  const quietly = async (what: string, action: () => Promise<void>): Promise<void> => {
    try {
      await action();
    } catch (error) {
      if (!isAgentError(error)) throw error;
      log.warning(`[CGW] Could not ${what}: ${describe(error)}`);
      system.emit({
        operation: "CGroupsInfo",
        success: false,
        message: `Could not ${what}: ${describe(error)}`,
        log: false,
      });
    }
  };

  /** One command for all properties of a unit, and none when they are what was set last (DB-20). */
  const setProperties = async (unit: string, properties: readonly string[]): Promise<void> => {
    const wanted = properties.join(" ");
    if (applied.get(unit) === wanted) return;
    await system.exec.run({
      argv: ["systemctl", "set-property", unit, ...properties, "--runtime"],
      timeoutMs: TIMEOUT_MS,
    });
    applied.set(unit, wanted);
    log.info(`[CGI] Set properties of ${unit}: ${wanted}`);
  };

  const track = (kind: MeasuredGroup): void => {
    if (tracked.has(kind.instance)) return;
    for (const [controller, directory] of [
      ["cpu", kind.cpu],
      ["memory", kind.memory],
    ] as const)
      if (directory !== undefined)
        log.info(`[CGI] Started tracking ${controller} cgroup ${kind.instance} [${directory}]`);
    tracked.set(kind.instance, kind);
  };

  const untrack = (instance: string): void => {
    if (!tracked.delete(instance)) return;
    samples.delete(instance);
    log.info(`[CGI] Stopped tracking cgroup ${instance}`);
  };

  const isolation: Isolation = {
    place: async ({ handler, extension, operation, id }) => {
      if (tree === undefined || system.clock.monotonic() < pausedUntil) return {};
      const slice = sliceOf(handler, extension);
      if (tree.systemdRun === undefined) return placePlainly(system, tree, slice, id, log);
      const unit = `${operation}_${id}`;
      const directory = directoryOf(system, tree, slice);
      return {
        // CG-30; the scope itself is not accounted, so that the counters stay on the slice.
        through: [
          tree.systemdRun,
          "--property=CPUAccounting=no",
          "--property=MemoryAccounting=no",
          `--unit=${unit}`,
          "--scope",
          `--slice=${slice}`,
        ],
        ...(directory === undefined ? {} : { cgroup: join(directory, `${unit}.scope`) }),
      };
    },
    failed: (reason) => {
      pausedUntil = system.clock.monotonic() + PAUSE_MS;
      const message = `Commands of extensions run without a scope for ${PAUSE_MS / 60_000} minutes: ${reason}`;
      log.warning(`[CGW] ${message}`);
      system.emit({ operation: "CGroupsDisabled", success: false, message, log: false });
    },
  };

  const enforcesMemory = options.enforceMemory === true && tree?.version === 2;
  const tasksMax = options.tasksMax ?? 0;

  /** Memory limits as wanted now; also lifts those of an earlier run that enforced them. */
  const memoryOf = (unit: string, limit: Limits): readonly string[] => {
    if (limit.memoryQuotaInMB === undefined) return [];
    const { high, max } = memoryLimits(limit.memoryQuotaInMB);
    if (enforcesMemory) return [`MemoryHigh=${high}`, `MemoryMax=${max}`];
    const set = system.files.readTextIfExists(
      join(RUNTIME_DROP_INS, `${unit}.d`, "50-MemoryMax.conf"),
    );
    return set?.includes(`MemoryMax=${max}\n`) === true
      ? ["MemoryHigh=infinity", "MemoryMax=infinity"]
      : [];
  };

  const limits: ResourceControl = {
    apply: async (handler, extension, manifest) => {
      if (tree?.systemdRun === undefined) return;
      const { resourceLimits } = manifest;
      const slice = sliceOf(handler, extension);
      await quietly(`set the limits of ${handler.name}`, () =>
        setProperties(slice, [
          ...propertiesOf(resourceLimits),
          ...memoryOf(slice, resourceLimits),
          ...(tasksMax > 0 ? [`TasksMax=${tasksMax}`] : []),
        ]),
      );
      if (resourceLimits.memoryQuotaInMB !== undefined)
        system.emit({
          operation: "ExtensionResourceGovernance",
          success: true,
          message: `${handler.name} asks for ${resourceLimits.memoryQuotaInMB} MiB of memory, ${
            enforcesMemory ? "which is enforced on its slice" : "which is not enforced"
          }`,
          name: handler.name,
          version: handler.version,
          periodMs: HOUR_MS,
          log: false,
        });
      for (const service of resourceLimits.services) {
        await quietly(`set the limits of ${service.name}`, async () => {
          await removeDropIns(system, options.unitDirectory, service.name);
          if ((await show(system, service.name, "LoadState")) === "loaded")
            await setProperties(service.name, [
              ...propertiesOf(service),
              ...memoryOf(service.name, service),
            ]);
        });
      }
    },

    track: async (handler, manifest) => {
      if (tree?.systemdRun === undefined) return;
      for (const service of manifest.resourceLimits.services) {
        await quietly(`track ${service.name}`, async () => {
          const group = await show(system, service.name, "ControlGroup");
          track({
            instance: service.name,
            cpu: serviceDirectory(system, tree, group, "cpu"),
            memory: serviceDirectory(system, tree, group, "memory"),
            hasQuota: service.cpuQuotaPercentage !== undefined,
          });
        });
      }
      trackSlice(handler, undefined, manifest);
    },

    release: async (_handler, manifest) => {
      if (tree?.systemdRun === undefined) return;
      for (const { name } of manifest.resourceLimits.services) {
        untrack(name);
        await quietly(`reset the limits of ${name}`, async () => {
          if ((await show(system, name, "LoadState")) === "loaded")
            await setProperties(name, ["CPUQuota=", ...resetOf(applied.get(name))]);
        });
        applied.delete(name);
      }
    },

    forget: async (handler, extensions) => {
      if (tree === undefined) return;
      for (const extension of [undefined, ...extensions]) {
        const slice = sliceOf(handler, extension);
        untrack(displayName(handler.name, extension));
        if (tree.systemdRun === undefined) removePlainly(system, tree, slice);
        const known = applied.get(slice);
        // A slice that never had a quota needs no reset.
        const reset = [
          ...(/CPUQuota=\d/.test(known ?? "") ? ["CPUQuota="] : []),
          ...resetOf(known),
        ];
        if (reset.length > 0 && tree.systemdRun !== undefined)
          await quietly(`reset the limits of ${slice}`, () => setProperties(slice, reset));
        applied.delete(slice);
      }
    },
  };

  const trackSlice = (
    handler: HandlerRef,
    extension: string | undefined,
    manifest: HandlerManifest,
  ): void => {
    if (tree === undefined) return;
    const slice = sliceOf(handler, extension);
    track({
      instance: displayName(handler.name, extension),
      cpu: directoryOf(system, tree, slice, "cpu"),
      memory: directoryOf(system, tree, slice, "memory"),
      hasQuota: manifest.resourceLimits.cpuQuotaPercentage !== undefined,
    });
  };

  const sample = async (): Promise<readonly UsageMetric[]> => {
    if (tree === undefined) return [];
    const now = system.clock.monotonic();
    const withHourly = now - lastHourly >= HOUR_MS;
    if (withHourly) lastHourly = now;
    return [...tracked.values()].flatMap((group) => {
      const directory = group.cpu ?? group.memory;
      if (directory === undefined || !hasProcesses(system, directory)) {
        untrack(group.instance);
        return [];
      }
      const result = measure(system, tree, group, samples.get(group.instance));
      if (result.sample !== undefined) samples.set(group.instance, result.sample);
      return result.metrics.filter((metric) => withHourly || !isHourly(metric));
    });
  };

  return {
    isolation,
    limits,
    isolates: () => tree?.systemdRun !== undefined && system.clock.monotonic() >= pausedUntil,
    sample,
    prepare: () => {
      if (tree?.systemdRun === undefined) {
        log.info(
          tree === undefined
            ? "[CGI] Commands of extensions cannot be put into control groups on this machine"
            : `[CGI] Commands of extensions run in control groups of version ${tree.version}, without systemd`,
        );
        return;
      }
      log.info(
        `[CGI] Commands of extensions run in scopes, control groups of version ${tree.version}`,
      );
      for (const [name, text] of UNITS) {
        const file = join(options.unitDirectory, name);
        try {
          if (!system.files.exists(file)) system.files.write(file, text, { mode: 0o644 });
        } catch (error) {
          log.warning(`[CGW] ${file} could not be written: ${describe(error)}`);
        }
      }
      // A CPU quota that an older agent left for its interpreter would hold this one back.
      if (options.agentService !== undefined)
        for (const name of LEGACY_DROP_INS)
          removeQuietly(
            system,
            join(options.unitDirectory, `${options.agentService}.service.d`, name),
          );
      removeQuietly(system, "/etc/systemd/system/system-walinuxagent.extensions.slice");
      removeQuietly(system, join(options.unitDirectory, "azure-walinuxagent-logcollector.slice"));
    },
  };
}

/** CG-20: accounting always, a quota only when the package asks for one. */
function propertiesOf(limits: Limits): readonly string[] {
  const quota = limits.cpuQuotaPercentage;
  return [
    "CPUAccounting=yes",
    "MemoryAccounting=yes",
    ...(quota === undefined ? [] : [`CPUQuota=${quota}%`]),
  ];
}

/** Bytes from which memory is reclaimed, and above which the kernel kills. */
function memoryLimits(quotaInMiB: number): { readonly high: number; readonly max: number } {
  const max = Math.floor(quotaInMiB * MIB);
  return { high: Math.floor(max * MEMORY_HIGH_SHARE), max };
}

/** What ends the memory and process limits among properties that were set. */
function resetOf(properties: string | undefined): readonly string[] {
  return ["MemoryHigh", "MemoryMax", "TasksMax"]
    .filter((name) => new RegExp(`\\b${name}=\\d`).test(properties ?? ""))
    .map((name) => `${name}=infinity`);
}

/** Without systemd a group is a directory; what is empty of earlier runs goes at the same time. */
function placePlainly(
  system: Pick<System, "files">,
  tree: CgroupTree,
  slice: string,
  id: string,
  log: System["log"],
): { readonly cgroup?: SystemPath } {
  const parent = directoryOf(system, tree, slice);
  if (parent === undefined) return {};
  try {
    for (const name of system.files.list(parent))
      if (name.startsWith("run-")) removeGroup(system, join(parent, name));
    const cgroup = join(parent, `run-${id}`);
    system.files.makeDirectory(cgroup);
    return { cgroup };
  } catch (error) {
    log.periodically(
      "INFO",
      HOUR_MS,
      `[CGI] Control groups cannot be written, commands run without: ${describe(error)}`,
      "plain cgroups",
    );
    return {};
  }
}

/** Groups of a handler that is gone, as far as nothing lives in them. */
function removePlainly(system: Pick<System, "files">, tree: CgroupTree, slice: string): void {
  const directory = directoryOf(system, tree, slice);
  if (directory === undefined || !system.files.exists(directory)) return;
  for (const name of system.files.list(directory))
    if (name.startsWith("run-")) removeGroup(system, join(directory, name));
  removeGroup(system, directory);
}

function removeGroup(system: Pick<System, "files">, directory: SystemPath): void {
  try {
    system.files.removeEmptyDirectory(directory);
  } catch {
    // EBUSY: something of that run still lives there, which is its right
  }
}

async function removeDropIns(
  system: Pick<System, "files">,
  unitDirectory: SystemPath,
  service: string,
): Promise<void> {
  for (const name of LEGACY_DROP_INS) {
    const file = join(unitDirectory, `${service}.d`, name);
    if (system.files.exists(file)) system.files.remove(file);
  }
}

function removeQuietly(system: Pick<System, "files" | "log">, file: SystemPath): void {
  try {
    if (system.files.exists(file)) system.files.remove(file);
  } catch (error) {
    system.log.warning(`[CGW] ${file} was left behind: ${describe(error)}`);
  }
}

async function show(system: Pick<System, "exec">, unit: string, property: string): Promise<string> {
  const { stdout } = await system.exec.run({
    argv: ["systemctl", "show", unit, "--property", property, "--value"],
    timeoutMs: TIMEOUT_MS,
  });
  return stdout.trim();
}
