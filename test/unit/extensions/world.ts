import { AgentError } from "../../../src/base/error.ts";
import type {
  ExtensionsGoalState,
  HandlerGoal,
  SettingsGoal,
} from "../../../src/azure/goal-state.ts";
import { defaultConfig, type Config } from "../../../src/config/table.ts";
import type { PackageSource } from "../../../src/extensions/package-source.ts";
import { createExtensionsRunner, type RunnerOptions } from "../../../src/extensions/runner.ts";
import type { SystemPath } from "../../../src/system/root.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";
import { buildExtension, type ExtensionPackage } from "../../fixtures/extensions/package.ts";

export const LIB = "/var/lib/waagent";
export const LOGS = "/var/log/azure";

/** A fake machine with a package source that tests fill, and the runner over both. */
export function createWorld(options: { config?: Partial<Config> } & Partial<RunnerOptions> = {}) {
  const system: FakeSystem = createFakeSystem();
  const packages = new Map<string, Uint8Array>();
  const fetched: string[] = [];
  const kept = new Map<string, string>();
  const config: Config = { ...defaultConfig(), ...options.config };
  let manifestFailure: AgentError | undefined;

  const source: PackageSource = {
    versions: (handler) => {
      fetched.push(`manifest ${handler.name}`);
      if (manifestFailure !== undefined) return Promise.reject(manifestFailure);
      const prefix = `${handler.name} `;
      return Promise.resolve({
        packages: [...packages.keys()]
          .filter((name) => name.startsWith(prefix))
          .map((name) => ({ version: name.slice(prefix.length), uris: [`mem://${name}`] })),
        manifestUri: "mem://manifest",
      });
    },
    download: async (request) => {
      let last: unknown;
      for (const uri of request.uris) {
        fetched.push(`package ${uri.slice(6)}`);
        const bytes = packages.get(uri.slice(6));
        if (bytes === undefined) continue;
        system.files.write(request.file, bytes, { mode: 0o600 });
        try {
          await request.accept(request.file);
          return;
        } catch (error) {
          if (error instanceof AgentError && ["refused", "cancelled"].includes(error.code))
            throw error;
          last = error;
        } finally {
          system.files.remove(request.file);
        }
      }
      throw new AgentError("protocol", `No source had ${request.what}`, { cause: last });
    },
    keep: (name, text) => void kept.set(name, text),
  };

  const createRunner = () =>
    createExtensionsRunner(system, config, {
      source,
      wireServerAddress: "168.63.129.16",
      environment: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", SECRET: "x", https_proxy: "http://p" },
      ...options,
    });

  return {
    system,
    packages,
    fetched,
    kept,
    config,
    createRunner,
    runner: createRunner(),
    offer(...extensions: ExtensionPackage[]) {
      for (const extension of extensions)
        packages.set(`${extension.name} ${extension.version}`, buildExtension(extension));
    },
    failManifests(error: AgentError | undefined) {
      manifestFailure = error;
    },
    /** Calls that the recording script of a handler noted. */
    calls(name: string): string[] {
      const text = system.files.readTextIfExists(`${LOGS}/${name}/calls`) ?? "";
      return text.split("\n").filter((line) => line !== "");
    },
    read(path: string): string | undefined {
      return system.files.readTextIfExists(`${LIB}/${path}` as SystemPath);
    },
    [Symbol.dispose]: () => system[Symbol.dispose](),
  };
}

export type World = ReturnType<typeof createWorld>;

let goals = 0;

export function goal(
  handlers: readonly HandlerGoal[],
  more: Partial<ExtensionsGoalState> = {},
): ExtensionsGoalState {
  goals += 1;
  return {
    id: `incarnation_${goals}`,
    source: "Fabric",
    channel: "WireServer",
    activityId: "a",
    correlationId: "c",
    createdAt: "2030-01-01T00:00:00.000000Z",
    sequence: String(goals),
    onHold: false,
    outdated: false,
    statusBlob: undefined,
    requiredFeatures: [],
    agentFamilies: [],
    handlers,
    signatureCapable: true,
    ...more,
  };
}

export function settings(sequence: number, more: Partial<SettingsGoal> = {}): SettingsGoal {
  return {
    name: "unnamed",
    sequence,
    state: "enabled",
    publicSettings: null,
    protectedSettings: null,
    thumbprint: null,
    dependencyLevel: 0,
    dependsOn: [],
    ...more,
  };
}

export function handler(
  name: string,
  version: string,
  more: Partial<HandlerGoal> = {},
): HandlerGoal {
  const result: HandlerGoal = {
    name,
    version,
    state: "enabled",
    manifestUris: ["mem://manifest"],
    multiConfig: false,
    encodedSignature: "",
    settings: [settings(0)],
    invalid: undefined,
    ...more,
  };
  if (result.multiConfig) return result;
  return { ...result, settings: result.settings.map((entry) => ({ ...entry, name })) };
}
