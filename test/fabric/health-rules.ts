import type { World } from "./documents.ts";

/** One provisioning report of the agent. */
export interface HealthReport {
  readonly at: number;
  readonly state: string;
  readonly subStatus?: string;
  readonly description?: string;
}

const SHAPE =
  /^<\?xml version="1\.0" encoding="utf-8"\?>\s*<Health xmlns:xsi="http:\/\/www\.w3\.org\/2001\/XMLSchema-instance" xmlns:xsd="http:\/\/www\.w3\.org\/2001\/XMLSchema"><GoalStateIncarnation>([^<]+)<\/GoalStateIncarnation><Container><ContainerId>([^<]+)<\/ContainerId><RoleInstanceList><Role><InstanceId>([^<]+)<\/InstanceId><Health><State>(Ready|NotReady)<\/State>(?:<Details><SubStatus>([^<]+)<\/SubStatus><Description>([^<]*)<\/Description><\/Details>)?<\/Health><\/Role><\/RoleInstanceList><\/Container><\/Health>\s*$/;

/** The report's content, whatever else is wrong with it; undefined when it is no health document. */
export function readHealthReport(body: string, at: number): HealthReport | undefined {
  const text = body.replace(/>\s+</g, "><");
  const state = /<State>(\w+)<\/State>/.exec(text)?.[1];
  if (state === undefined) return undefined;
  const subStatus = /<SubStatus>([^<]*)</.exec(text)?.[1];
  const description = /<Description>([^<]*)</.exec(text)?.[1];
  return {
    at,
    state,
    ...(subStatus === undefined ? {} : { subStatus }),
    ...(description === undefined ? {} : { description }),
  };
}

/** `wire-protocol.md` WIRE-21, WIRE-22. */
export function healthRules(
  body: string,
  world: World,
  before: readonly HealthReport[],
  report: (rule: string, message: string) => void,
): void {
  const match = SHAPE.exec(body.replace(/>\s+</g, "><"));
  if (match === null)
    return report("WIRE-21", `the health document has another shape: ${body.slice(0, 600)}`);
  const [, incarnation, container, instance, state, subStatus, description] = match;
  const same = (what: string, value: string | undefined, wanted: string) => {
    if (value !== wanted) report("WIRE-21", `${what} is ${value}, not ${wanted}`);
  };
  same("GoalStateIncarnation", incarnation, world.goal.incarnation);
  same("ContainerId", container, world.vm.containerId);
  same("InstanceId", instance, world.vm.instanceId);
  if (state === "Ready" && subStatus !== undefined) report("WIRE-22", "Ready has no details");
  if (state === "NotReady" && subStatus === undefined)
    report("WIRE-22", "NotReady needs a sub-status");
  if (subStatus !== undefined && subStatus !== "Provisioning" && subStatus !== "ProvisioningFailed")
    report("WIRE-22", `${subStatus} is no sub-status`);
  if (subStatus === "Provisioning" && description !== "Starting")
    report("WIRE-22", `Provisioning is described as ${description}, not Starting`);
  if (Buffer.byteLength(body) > 4096 + 400 || (description?.length ?? 0) > 4096)
    report("WIRE-21", "the description is longer than the server takes");
  if (state === "NotReady" && before.some((one) => one.state === "Ready"))
    report("WIRE-22", "NotReady after Ready: the platform would restart the VM's provisioning");
}
