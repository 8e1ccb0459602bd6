import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createExec } from "../../../src/system/exec.ts";
import type { HttpRequest } from "../../../src/system/http.ts";
import { Root, type SystemPath } from "../../../src/system/root.ts";
import type { System } from "../../../src/system/system.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";

export const LIB: SystemPath = "/var/lib/waagent";
export const ENDPOINT = "168.63.129.16";
export const WIRE = `http://${ENDPOINT}`;
export const HOST = `http://${ENDPOINT}:32526`;

/** A fake machine with its state directory, and the real openssl of the test machine where asked for. */
export function createMachine(
  options: { openssl?: boolean; automatic?: boolean; now?: number } = {},
): FakeSystem & System {
  const { openssl = false, ...rest } = options;
  const system = createFakeSystem({ now: Date.now(), ...rest });
  system.files.makeDirectory(LIB, { mode: 0o700 });
  if (!openssl) return system;
  const real = createExec(new Root("/"));
  const exec = {
    find: real.find,
    run: (command: Parameters<typeof real.run>[0]) => {
      system.commands.push([...command.argv]);
      return real.run({ ...command, cwd: "/" });
    },
  };
  return {
    ...system,
    exec,
    set route(value) {
      system.route = value;
    },
    get route() {
      return system.route;
    },
  };
}

export interface Answer {
  readonly status?: number;
  readonly headers?: Record<string, string>;
  readonly body?: string | Uint8Array;
}

/** What the emulated platform serves, by URL without query or with it; tests change it as they go. */
export interface Platform {
  incarnation: string;
  /** Answers by exact URL; a function sees the request. */
  readonly answers: Map<string, Answer | Error | ((request: HttpRequest) => Answer | Error)>;
}

export const CONFIG_NAME = "deployment-1.0.deployment-1.0._role.1.xml";
export const CONTAINER = "11111111-2222-3333-4444-555555555555";

export function goalStateXml(options: {
  incarnation?: string;
  certificates?: boolean;
  extensions?: boolean;
  remoteAccess?: boolean;
}): string {
  const {
    incarnation = "1",
    certificates = true,
    extensions = true,
    remoteAccess = false,
  } = options;
  const uri = (type: string): string => `${WIRE}:80/machine/x/y?comp=config&amp;type=${type}`;
  return `<?xml version="1.0" encoding="utf-8"?>
<GoalState><Version>2012-11-30</Version><Incarnation>${incarnation}</Incarnation>
<Machine><ExpectedState>Started</ExpectedState></Machine>
<Container><ContainerId>${CONTAINER}</ContainerId>
${remoteAccess ? `<RemoteAccessInfo>${WIRE}:80/machine/x/y?comp=remoteaccess\n</RemoteAccessInfo>` : ""}
<RoleInstanceList><RoleInstance><InstanceId>dep.role_IN_0</InstanceId><State>Started</State><Configuration>
<HostingEnvironmentConfig>${uri("hostingEnvironmentConfig")}</HostingEnvironmentConfig>
<SharedConfig>${uri("sharedConfig")}</SharedConfig>
${extensions ? `<ExtensionsConfig>${uri("extensionsConfig")}</ExtensionsConfig>` : ""}
<FullConfig>${uri("fullConfig")}</FullConfig>
${certificates ? `<Certificates>${WIRE}:80/machine/x/y?comp=certificates</Certificates>` : ""}
<ConfigName>${CONFIG_NAME}</ConfigName><ConfigName>other.xml</ConfigName>
</Configuration></RoleInstance></RoleInstanceList></Container></GoalState>`;
}

export const URLS = {
  versions: `${WIRE}/?comp=versions`,
  goalState: `${WIRE}/machine/?comp=goalstate`,
  environment: `${WIRE}:80/machine/x/y?comp=config&type=hostingEnvironmentConfig`,
  shared: `${WIRE}:80/machine/x/y?comp=config&type=sharedConfig`,
  extensions: `${WIRE}:80/machine/x/y?comp=config&type=extensionsConfig`,
  certificates: `${WIRE}:80/machine/x/y?comp=certificates`,
  remoteAccess: `${WIRE}:80/machine/x/y?comp=remoteaccess`,
  hostVersions: `${HOST}/versions`,
  vmSettings: `${HOST}/vmSettings`,
  status: `${HOST}/status`,
  artifact: `${HOST}/extensionArtifact`,
} as const;

export const VERSIONS_XML =
  "<?xml version='1.0'?><Versions><Preferred><Version>2012-11-30</Version></Preferred><Supported><Version>2010-12-15</Version></Supported></Versions>";

export const ENVIRONMENT_XML =
  '<HostingEnvironmentConfig><Deployment name="tenant-1"/><Incarnation number="1" instance="vm-1"/><Role name="role-1"/></HostingEnvironmentConfig>';

export const SHARED_XML = "<SharedConfig><Deployment name='x'/></SharedConfig>";

export function extensionsXml(
  options: { ticks?: string; inner?: string; profile?: string } = {},
): string {
  const { ticks = "638000000000000000", inner = "", profile } = options;
  return `<Extensions version="1.0.0.0" goalStateIncarnation="1">
<GuestAgentExtension><GAFamilies><GAFamily><Name>Prod</Name><Uris><Uri>https://storage.example/ga.xml</Uri></Uris></GAFamily></GAFamilies></GuestAgentExtension>
<StatusUploadBlob statusBlobType="BlockBlob">
https://storage.example/vm.status?sv=1&amp;sig=SECRETSIG
</StatusUploadBlob>
${profile === undefined ? "" : `<InVMArtifactsProfileBlob>${profile}</InVMArtifactsProfileBlob>`}
${inner}
<InVMGoalStateMetaData inSvdSeqNo="2" createdOnTicks="${ticks}" activityId="aaaaaaaa-0000-0000-0000-000000000001" correlationId="aaaaaaaa-0000-0000-0000-000000000002"/>
</Extensions>`;
}

/** A WireServer and host plugin behind `system.route`. */
export function createPlatform(system: FakeSystem): Platform {
  const platform: Platform = { incarnation: "1", answers: new Map() };
  const { answers } = platform;
  answers.set(URLS.versions, { body: VERSIONS_XML });
  answers.set(URLS.goalState, () => ({
    body: goalStateXml({ incarnation: platform.incarnation, certificates: false }),
  }));
  answers.set(URLS.environment, { body: ENVIRONMENT_XML });
  answers.set(URLS.shared, { body: SHARED_XML });
  answers.set(URLS.extensions, { body: extensionsXml() });
  answers.set(URLS.hostVersions, { body: '["2015-09-01", "2012-11-30"]' });
  answers.set(URLS.status, { status: 201 });
  system.route = (request) => {
    const answer = answers.get(request.url);
    if (answer === undefined) return { status: 404, reason: "Not Found", body: "no such thing" };
    return typeof answer === "function" ? answer(request) : answer;
  };
  return platform;
}

/** URLs asked for since the last call. */
export function takeUrls(system: FakeSystem): string[] {
  return system.requests.splice(0).map(({ method, url }) => `${method} ${url}`);
}

export interface TestCertificate {
  readonly certificate: string;
  readonly key: string;
}

/** Runs the machine's openssl in a scratch directory. */
export function withOpenssl<Result>(
  work: (run: (...args: string[]) => Buffer, directory: string) => Result,
): Result {
  const directory = mkdtempSync(path.join(tmpdir(), "waagent-openssl-"));
  try {
    return work(
      (...args) =>
        execFileSync("openssl", args, { cwd: directory, stdio: ["ignore", "pipe", "pipe"] }),
      directory,
    );
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

export function makeCertificate(
  subject: string,
  algorithm: readonly string[] = ["-newkey", "rsa:2048"],
): TestCertificate {
  return withOpenssl((run, directory) => {
    run(
      "req",
      "-x509",
      "-nodes",
      "-subj",
      subject,
      "-days",
      "30",
      ...algorithm,
      "-keyout",
      "k.pem",
      "-out",
      "c.pem",
    );
    return {
      certificate: readFileSync(path.join(directory, "c.pem"), "utf8"),
      key: readFileSync(path.join(directory, "k.pem"), "utf8"),
    };
  });
}

/** A certificates response as the platform makes it: PFX without password, in CMS for the given certificate. */
export function certificatesXml(
  tenant: TestCertificate,
  options: {
    others?: readonly TestCertificate[];
    recipient: string;
    cipher?: "-aes128" | "-des3";
    format?: string | null;
  },
): string {
  const {
    others = [],
    recipient,
    cipher = "-aes128",
    format = "Pkcs7BlobWithPfxContents",
  } = options;
  const data = withOpenssl((run, directory) => {
    const file = (name: string, text: string): string => {
      writeFileSync(path.join(directory, name), text);
      return name;
    };
    const certificateText = recipient.includes("BEGIN")
      ? recipient
      : `-----BEGIN CERTIFICATE-----\n${recipient.match(/.{1,64}/g)?.join("\n")}\n-----END CERTIFICATE-----\n`;
    run(
      "pkcs12",
      "-export",
      "-out",
      "x.pfx",
      "-passout",
      "pass:",
      "-inkey",
      file("k.pem", tenant.key),
      "-in",
      file("c.pem", tenant.certificate),
      ...(others.length === 0
        ? []
        : ["-certfile", file("o.pem", others.map((other) => other.certificate).join(""))]),
    );
    return run(
      "cms",
      "-encrypt",
      "-binary",
      "-keyid",
      cipher,
      "-outform",
      "DER",
      "-in",
      "x.pfx",
      file("r.pem", certificateText),
    ).toString("base64");
  });
  const formatElement = format === null ? "" : `<Format>${format}</Format>`;
  return `<CertificateFile><Version>2012-11-30</Version><Incarnation>1</Incarnation>${formatElement}<Data>${data.match(/.{1,64}/g)?.join("\n")}</Data></CertificateFile>`;
}
