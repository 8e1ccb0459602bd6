import type {
  ExtensionDescription,
  FamilyDescription,
  GoalStateDescription,
  SettingsDescription,
  VmIdentity,
} from "./scenario.ts";

/** Everything a goal state document is made from, with all defaults filled in. */
export interface World {
  readonly vm: VmIdentity;
  readonly goal: GoalStateDescription;
  /** 100 ns units since the year 1, as decimal text: larger than a double holds exactly. */
  readonly createdOnTicks: string;
  readonly etag: string;
  readonly hostPluginVersion: string;
  /** "http://168.63.129.16:80" */
  readonly wireServer: string;
  /** Origin of the two storage accounts, e.g. "https://stor1.blob.fabric.test". */
  readonly storage: readonly [string, string];
  /** Thumbprint and encryption for protected settings. */
  readonly thumbprint: string;
  readonly encrypted: (settings: unknown) => string;
}

/** The query that gives access to a blob, until the given instant. */
export function sas(expiry = "2035-01-01T00:00:00Z"): string {
  return `sv=2021-12-02&sr=b&sig=fabric%2Bsignature%3D&se=${encodeURIComponent(expiry)}&sp=rw`;
}

export function escapeXml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}

export function versionsDocument(): string {
  return `<?xml version="1.0" encoding="utf-8"?>
<Versions>
  <Preferred><Version>2015-04-05</Version></Preferred>
  <Supported>
    <Version>2015-04-05</Version>
    <Version>2012-11-30</Version>
    <Version>2011-12-31</Version>
  </Supported>
</Versions>
`;
}

export function statusBlobUrl(world: Pick<World, "storage" | "vm" | "goal">): string {
  return `${world.storage[0]}/status/${world.vm.vmId}.status?${sas(world.goal.sasExpiry)}`;
}

export function profileBlobUrl(world: Pick<World, "storage" | "vm" | "goal">): string {
  return `${world.storage[0]}/profile/${world.vm.vmId}.vmSettings?${sas(world.goal.sasExpiry)}`;
}

/** Path and query of one of the goal state's components, below the WireServer's origin. */
export function componentPath(world: Pick<World, "vm" | "goal">, query: string): string {
  const deployment = world.vm.configName.split(".")[0]!;
  return `/machine/${deployment}/${encodeURIComponent(world.vm.instanceId)}?${query}&incarnation=${world.goal.incarnation}`;
}

export function goalStateDocument(world: World): string {
  const { vm, goal } = world;
  const uri = (query: string) => escapeXml(world.wireServer + componentPath(world, query));
  const config = (type: string) => uri(`comp=config&type=${type}`);
  const remote =
    goal.remoteUsers === undefined
      ? ""
      : `\n    <RemoteAccessInfo>${uri("comp=remoteaccessinfo")}</RemoteAccessInfo>`;
  const certificates =
    goal.hasCertificates === false
      ? ""
      : `\n          <Certificates>${uri("comp=certificates")}</Certificates>`;
  return `<?xml version="1.0" encoding="utf-8"?>
<GoalState xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="goalstate10.xsd">
  <Version>2012-11-30</Version>
  <Incarnation>${escapeXml(goal.incarnation)}</Incarnation>
  <Machine>
    <ExpectedState>Started</ExpectedState>
    <LBProbePorts><Port>16001</Port></LBProbePorts>
  </Machine>
  <Container>
    <ContainerId>${vm.containerId}</ContainerId>${remote}
    <RoleInstanceList>
      <RoleInstance>
        <InstanceId>${escapeXml(vm.instanceId)}</InstanceId>
        <State>Started</State>
        <Configuration>
          <HostingEnvironmentConfig>${config("hostingEnvironmentConfig")}</HostingEnvironmentConfig>
          <SharedConfig>${config("sharedConfig")}</SharedConfig>
          <ExtensionsConfig>${config("extensionsConfig")}</ExtensionsConfig>
          <FullConfig>${config("fullConfig")}</FullConfig>${certificates}
          <ConfigName>${escapeXml(vm.configName)}</ConfigName>
        </Configuration>
      </RoleInstance>
    </RoleInstanceList>
  </Container>
</GoalState>
`;
}

export function hostingEnvironmentDocument(world: World): string {
  const { vm, goal } = world;
  return `<HostingEnvironmentConfig version="1.0.0.0" goalStateIncarnation="${goal.incarnation}">
  <StoredCertificates />
  <Deployment name="${vm.tenantName}" guid="{11111111-0000-4000-8000-000000000001}" incarnation="0" isNonCancellableTopologyChangeEnabled="false">
    <Service name="fabric" guid="{00000000-0000-0000-0000-000000000000}" />
  </Deployment>
  <Incarnation number="1" instance="${vm.roleName}_IN_0" guid="{11111111-0000-4000-8000-000000000002}" />
  <Role guid="{11111111-0000-4000-8000-000000000003}" name="${vm.roleName}" hostingEnvironmentVersion="1" softwareType="ApplicationPackage" />
  <HostingEnvironmentSettings name="full" />
  <ApplicationSettings />
  <ResourceReferences />
</HostingEnvironmentConfig>
`;
}

export function sharedConfigDocument(world: World): string {
  const { vm, goal } = world;
  return `<SharedConfig version="1.0.0.0" goalStateIncarnation="${goal.incarnation}">
  <Deployment name="${vm.tenantName}" guid="{11111111-0000-4000-8000-000000000001}" incarnation="0" />
  <Incarnation number="1" instance="${vm.roleName}_IN_0" guid="{11111111-0000-4000-8000-000000000002}" />
  <Role guid="{11111111-0000-4000-8000-000000000003}" name="${vm.roleName}" settleTimeSeconds="0" />
  <Instances>
    <Instance id="${vm.roleName}_IN_0" address="10.0.0.4">
      <FaultDomains randomId="0" updateId="0" updateCount="0" />
    </Instance>
  </Instances>
</SharedConfig>
`;
}

export function manifestUrls(
  world: Pick<World, "storage">,
  name: string,
): readonly [string, string] {
  return [`${world.storage[0]}/manifests/${name}.xml`, `${world.storage[1]}/manifests/${name}.xml`];
}

export function packageUrls(
  world: Pick<World, "storage">,
  name: string,
  version: string,
): readonly string[] {
  return world.storage.map((origin) => `${origin}/packages/${name}__${version}.zip`);
}

export function extensionsConfigDocument(world: World): string {
  const { goal } = world;
  const extensions = goal.extensions ?? [];
  const status =
    goal.statusBlob === "none"
      ? ""
      : `  <StatusUploadBlob statusBlobType="${goal.statusBlob ?? "BlockBlob"}">${escapeXml(statusBlobUrl(world))}</StatusUploadBlob>\n`;
  const profile =
    goal.onHold === undefined
      ? ""
      : `  <InVMArtifactsProfileBlob statusBlobType="BlockBlob">${escapeXml(profileBlobUrl(world))}</InVMArtifactsProfileBlob>\n`;
  const features = (goal.requiredFeatures ?? [])
    .map((name) => `<RequiredFeature><Name>${escapeXml(name)}</Name></RequiredFeature>`)
    .join("");
  return `<Extensions version="1.0.0.0" goalStateIncarnation="${goal.incarnation}">
  <GuestAgentExtension xmlns:i="http://www.w3.org/2001/XMLSchema-instance">
    <GAFamilies>${(goal.families ?? []).map((family) => familyElement(world, family)).join("")}</GAFamilies>
    <Location>westeurope</Location>
    <ServiceName>CRP</ServiceName>
  </GuestAgentExtension>
${features === "" ? "" : `  <RequiredFeatures>${features}</RequiredFeatures>\n`}${status}  <Plugins>${extensions.map((extension) => pluginElement(world, extension)).join("")}</Plugins>
  <PluginSettings>${extensions.map((extension) => settingsElement(world, extension)).join("")}</PluginSettings>
${profile}  <InVMGoalStateMetaData inSvdSeqNo="${goal.incarnation}" createdOnTicks="${world.createdOnTicks}" activityId="${activityId(world)}" correlationId="${correlationId(world)}" />
</Extensions>
`;
}

function familyElement(world: World, family: FamilyDescription): string {
  const optional = (name: string, value: string | boolean | undefined) =>
    value === undefined ? "" : `<${name}>${value}</${name}>`;
  return `<GAFamily><Name>${family.name}</Name>${optional("Version", family.version)}${optional("FromVersion", family.fromVersion)}${optional("IsVersionFromRSM", family.isVersionFromRsm)}${optional("IsVMEnabledForRSMUpgrades", family.isVmEnabledForRsmUpgrades)}<Uris>${manifestUrls(
    world,
    `agent.${family.name}`,
  )
    .map((uri) => `<Uri>${uri}</Uri>`)
    .join("")}</Uris></GAFamily>`;
}

function pluginElement(world: World, extension: ExtensionDescription): string {
  const [location, failover] = manifestUrls(world, extension.name);
  const signature =
    extension.encodedSignature === undefined
      ? ""
      : ` encodedSignature="${extension.encodedSignature}"`;
  return `<Plugin name="${extension.name}" version="${extension.version}" location="${location}" failoverlocation="${failover}" state="${extension.state ?? "enabled"}" autoUpgrade="true" runAsStartupTask="false" isJson="true" useExactVersion="true"${signature} />`;
}

function settingsElement(world: World, extension: ExtensionDescription): string {
  const depends = (settings: SettingsDescription, name?: string) =>
    settings.dependencyLevel === undefined
      ? ""
      : `<DependsOn ${name === undefined ? "" : `name="${name}" `}dependencyLevel="${settings.dependencyLevel}">${(settings.dependsOn ?? []).map((handler) => `<DependsOnExtension handler="${handler}" />`).join("")}</DependsOn>`;
  const body = (settings: SettingsDescription) =>
    escapeXml(`{"runtimeSettings":[{"handlerSettings":${handlerSettings(world, settings)}}]}`);
  if (extension.multi !== undefined) {
    const settings = extension.multi
      .map(
        (one) =>
          `<ExtensionRuntimeSettings name="${one.name}" seqNo="${one.sequence}" state="${one.state ?? "enabled"}">${body(one)}</ExtensionRuntimeSettings>${depends(one, one.name)}`,
      )
      .join("");
    return `<Plugin name="${extension.name}" version="${extension.version}">${settings}</Plugin>`;
  }
  if (extension.settings === undefined) return "";
  const { settings } = extension;
  return `<Plugin name="${extension.name}" version="${extension.version}">${depends(settings)}<RuntimeSettings seqNo="${settings.sequence}">${body(settings)}</RuntimeSettings></Plugin>`;
}

/** JSON text: the public settings may be a text that no value can stand for. */
function handlerSettings(world: World, settings: SettingsDescription): string {
  const hidden = Object.entries(protectedSettings(world, settings)).map(
    ([key, value]) => `"${key}":${JSON.stringify(value)},`,
  );
  return `{${hidden.join("")}"publicSettings":${publicText(settings)}}`;
}

function protectedSettings(world: World, settings: SettingsDescription): Record<string, unknown> {
  return settings.protected === undefined
    ? {}
    : {
        protectedSettingsCertThumbprint: world.thumbprint,
        protectedSettings: world.encrypted(settings.protected),
      };
}

function publicText(settings: SettingsDescription): string {
  return settings.publicText ?? JSON.stringify(settings.public ?? {});
}

/** The same id for the same content: a Fabric goal and its vmSettings name one operation. */
function activityId(world: World): string {
  return `aaaaaaaa-0000-4000-8000-${world.etag.slice(-12).padStart(12, "0")}`;
}

function correlationId(world: World): string {
  return `cccccccc-0000-4000-8000-${world.etag.slice(-12).padStart(12, "0")}`;
}

/** vmSettings of the host plugin. Big numbers are written as text into the JSON: they do not fit a double. */
export function vmSettingsDocument(world: World): string {
  const { goal } = world;
  const settingsOf = (settings: SettingsDescription) => ({
    ...protectedSettings(world, settings),
    publicSettings: publicText(settings),
  });
  const document = {
    hostGAPluginVersion: world.hostPluginVersion,
    vmSettingsSchemaVersion: "0.0",
    activityId: activityId(world),
    correlationId: correlationId(world),
    inSvdSeqNo: Number(goal.incarnation),
    extensionsLastModifiedTickCount: "@ticks@",
    extensionGoalStatesSource: goal.source ?? "Fabric",
    onHold: goal.onHold ?? false,
    ...(goal.statusBlob === "none"
      ? {}
      : {
          statusUploadBlob: {
            statusBlobType: goal.statusBlob ?? "BlockBlob",
            value: statusBlobUrl(world),
          },
        }),
    inVMMetadata: { subscriptionId: "sub", vmName: "vm", osType: "Linux" },
    ...(goal.requiredFeatures === undefined
      ? {}
      : { requiredFeatures: goal.requiredFeatures.map((name) => ({ name })) }),
    gaFamilies: (goal.families ?? []).map((family) => ({
      name: family.name,
      version: family.version,
      fromVersion: family.fromVersion,
      isVersionFromRSM: family.isVersionFromRsm,
      isVMEnabledForRSMUpgrades: family.isVmEnabledForRsmUpgrades,
      uris: manifestUrls(world, `agent.${family.name}`),
    })),
    extensionGoalStates: (goal.extensions ?? []).map((extension) => {
      const [location, failoverLocation] = manifestUrls(world, extension.name);
      const multi = extension.multi;
      return {
        name: extension.name,
        version: extension.version,
        location,
        failoverlocation: failoverLocation,
        additionalLocations: [],
        state: extension.state ?? "enabled",
        autoUpgrade: true,
        runAsStartupTask: false,
        isJson: true,
        useExactVersion: true,
        isMultiConfig: multi !== undefined,
        ...(extension.encodedSignature === undefined
          ? {}
          : { encodedSignature: extension.encodedSignature }),
        ...(multi !== undefined
          ? {
              settings: multi.map((one) => ({
                ...settingsOf(one),
                extensionName: one.name,
                seqNo: one.sequence,
                extensionState: one.state ?? "enabled",
              })),
              dependsOn: multi
                .filter((one) => one.dependencyLevel !== undefined)
                .map((one) => ({
                  name: one.name,
                  dependencyLevel: one.dependencyLevel,
                  DependsOnExtension: (one.dependsOn ?? []).map((handler) => ({ handler })),
                })),
            }
          : extension.settings === undefined
            ? {}
            : {
                settingsSeqNo: extension.settings.sequence,
                settings: [settingsOf(extension.settings)],
                ...(extension.settings.dependencyLevel === undefined
                  ? {}
                  : {
                      dependsOn: [
                        {
                          dependencyLevel: extension.settings.dependencyLevel,
                          DependsOnExtension: (extension.settings.dependsOn ?? []).map(
                            (handler) => ({
                              handler,
                            }),
                          ),
                        },
                      ],
                    }),
              }),
      };
    }),
  };
  return JSON.stringify(document).replace('"@ticks@"', world.createdOnTicks);
}

export interface ManifestEntry {
  readonly version: string;
  readonly uris: readonly string[];
  readonly isInternal: boolean;
}

export function manifestDocument(entries: readonly ManifestEntry[]): string {
  const plugin = (entry: ManifestEntry) =>
    `<Plugin><Version>${entry.version}</Version><Uris>${entry.uris.map((uri) => `<Uri>${escapeXml(uri)}</Uri>`).join("")}</Uris></Plugin>`;
  const list = (isInternal: boolean) =>
    entries
      .filter((entry) => entry.isInternal === isInternal)
      .map(plugin)
      .join("");
  return `<?xml version="1.0" encoding="utf-8"?>
<PluginVersionManifest xmlns:i="http://www.w3.org/2001/XMLSchema-instance"><Plugins>${list(false)}</Plugins><InternalPlugins>${list(true)}</InternalPlugins></PluginVersionManifest>
`;
}

/** `encryptedPassword` per user, base64 CMS for the transport certificate. */
export function remoteAccessDocument(
  goal: GoalStateDescription,
  encryptedPassword: ReadonlyMap<string, string>,
): string {
  const users = (goal.remoteUsers ?? [])
    .map(
      (user) =>
        `<User><Name>${escapeXml(user.name)}</Name><Password>${encryptedPassword.get(user.name) ?? ""}</Password><Expiration>${user.expiration}</Expiration><Groups><Group><GroupName>Administrators</GroupName></Group></Groups></User>`,
    )
    .join("");
  return `<?xml version="1.0" encoding="utf-8"?>
<RemoteAccess xmlns:i="http://www.w3.org/2001/XMLSchema-instance"><Version>1</Version><Incarnation>${goal.incarnation}</Incarnation><Users>${users}</Users></RemoteAccess>
`;
}

/** `data`: base64 DER of the CMS envelope. */
export function certificatesDocument(incarnation: string, data: string): string {
  return `<?xml version="1.0" encoding="utf-8"?>
<CertificateFile xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="certificates10.xsd">
  <Version>2010-12-15</Version>
  <Incarnation>${incarnation}</Incarnation>
  <Format>Pkcs7BlobWithPfxContents</Format>
  <Data>${data.replace(/(.{64})(?=.)/g, "$1\n")}</Data>
</CertificateFile>
`;
}

/** The instance metadata document: what every Azure VM answers, small. */
export function imdsDocument(vm: VmIdentity): {
  compute: Record<string, unknown>;
  network: unknown;
} {
  return {
    compute: {
      location: "westeurope",
      name: "fabric-vm",
      offer: "debian-12",
      osType: "Linux",
      placementGroupId: "",
      platformFaultDomain: "0",
      platformUpdateDomain: "0",
      publisher: "Debian",
      resourceGroupName: "fabric-group",
      sku: "12-gen2",
      subscriptionId: "99999999-8888-4777-8666-555555555555",
      tags: "",
      version: "0.20230711.1438",
      vmId: vm.vmId,
      vmSize: "Standard_B2s",
      vmScaleSetName: "",
      zone: "1",
    },
    network: {
      interface: [
        {
          ipv4: {
            ipAddress: [{ privateIpAddress: "10.0.0.4", publicIpAddress: "" }],
            subnet: [{ address: "10.0.0.0", prefix: "24" }],
          },
          ipv6: { ipAddress: [] },
          macAddress: "000D3A112233",
        },
      ],
    },
  };
}

/** 100 ns units since 0001-01-01, decimal. */
export function ticksOf(time: Date): string {
  return String(621355968000000000n + BigInt(time.getTime()) * 10000n);
}
