import { escapeXml } from "./documents.ts";
import type { ProvisioningDocument } from "./scenario.ts";

/** The `ovf-env.xml` of a provisioning DVD (`provisioning.md` §2), with the members that real documents have. */
export function ovfDocument(provisioning: ProvisioningDocument): string {
  const { hostName, userName, password, sshKeys = [], customData } = provisioning;
  const keys = sshKeys
    .map(
      (value, index) =>
        `<PublicKey><Fingerprint>${String(index).padStart(40, "0")}</Fingerprint><Path>/home/${escapeXml(userName)}/.ssh/authorized_keys</Path><Value>${escapeXml(value)}</Value></PublicKey>`,
    )
    .join("");
  const optional = (name: string, value: string | undefined) =>
    value === undefined ? "" : `\n      <${name}>${escapeXml(value)}</${name}>`;
  return `<?xml version="1.0" encoding="utf-8"?>
<ns0:Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:ns0="http://schemas.dmtf.org/ovf/environment/1" xmlns:ns1="http://schemas.microsoft.com/windowsazure" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <ns1:ProvisioningSection>
    <ns1:Version>1.0</ns1:Version>
    <LinuxProvisioningConfigurationSet xmlns="http://schemas.microsoft.com/windowsazure" xmlns:i="http://www.w3.org/2001/XMLSchema-instance">
      <ConfigurationSetType>LinuxProvisioningConfiguration</ConfigurationSetType>
      <HostName>${escapeXml(hostName)}</HostName>
      <UserName>${escapeXml(userName)}</UserName>${optional("UserPassword", password)}
      <DisableSshPasswordAuthentication>${provisioning.disablePasswordAuthentication ?? password === undefined}</DisableSshPasswordAuthentication>
      <SSH><PublicKeys>${keys}</PublicKeys></SSH>${optional("CustomData", customData === undefined ? undefined : Buffer.from(customData).toString("base64"))}
    </LinuxProvisioningConfigurationSet>
  </ns1:ProvisioningSection>
  <ns1:PlatformSettingsSection>
    <ns1:Version>1.0</ns1:Version>
    <ns1:PlatformSettings>
      <ns1:KmsServerHostname>azkms.core.windows.net</ns1:KmsServerHostname>
      <ns1:ProvisionGuestAgent>${provisioning.provisionGuestAgent ?? true}</ns1:ProvisionGuestAgent>
      <ns1:GuestAgentPackageName xsi:nil="true" />
      <ns1:PreprovisionedVm>false</ns1:PreprovisionedVm>
    </ns1:PlatformSettings>
  </ns1:PlatformSettingsSection>
</ns0:Environment>
`;
}
