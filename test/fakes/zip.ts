import * as zlib from "node:zlib";

/** One member of an archive that a test builds; every field of the format can be made to lie. */
export interface ZipMember {
  readonly name: string;
  readonly data?: string | Uint8Array;
  /** Unix mode with file type, default a regular file 0644. */
  readonly mode?: number;
  readonly method?: "store" | "deflate" | number;
  /** Name in the local header, default the same. */
  readonly localName?: string;
  /** What both headers say instead of the truth. */
  readonly crc?: number;
  readonly size?: number;
  readonly compressedSize?: number;
  readonly flags?: number;
  /** Where the central directory says the member begins. */
  readonly offset?: number;
}

/** Bytes of an archive, sane or hostile. */
export function buildZip(
  members: readonly ZipMember[],
  options: { prefix?: Uint8Array; comment?: string; entries?: number } = {},
): Uint8Array {
  const parts: Uint8Array[] = [];
  const central: Uint8Array[] = [];
  let position = 0;
  const push = (part: Uint8Array): void => {
    parts.push(part);
    position += part.length;
  };
  for (const member of members) {
    const data =
      typeof member.data === "string"
        ? Buffer.from(member.data)
        : (member.data ?? new Uint8Array());
    const method = member.method ?? (data.length === 0 ? "store" : "deflate");
    const body = method === "deflate" || method === 8 ? zlib.deflateRawSync(data) : data;
    const name = Buffer.from(member.name);
    const localName = Buffer.from(member.localName ?? member.name);
    const fields = Buffer.alloc(22);
    fields.writeUInt16LE(20, 0);
    fields.writeUInt16LE(member.flags ?? 0x800, 2);
    fields.writeUInt16LE(method === "store" ? 0 : method === "deflate" ? 8 : method, 4);
    fields.writeUInt32LE(0x00210000, 6);
    fields.writeUInt32LE(member.crc ?? zlib.crc32(data), 10);
    fields.writeUInt32LE(member.compressedSize ?? body.length, 14);
    fields.writeUInt32LE(member.size ?? data.length, 18);
    const start = position;
    push(
      Buffer.concat([
        Buffer.from("PK\u0003\u0004"),
        fields,
        uint16(localName.length),
        uint16(0),
        localName,
      ]),
    );
    push(body);
    const tail = Buffer.alloc(14);
    tail.writeUInt32LE(((member.mode ?? 0o100644) << 16) >>> 0, 6);
    tail.writeUInt32LE(member.offset ?? start, 10);
    central.push(
      Buffer.concat([
        Buffer.from([0x50, 0x4b, 1, 2, 20, 3]),
        fields,
        uint16(name.length),
        uint16(0),
        tail,
        name,
      ]),
    );
  }
  const directoryOffset = position;
  for (const record of central) push(record);
  const end = Buffer.alloc(18);
  end.writeUInt16LE(options.entries ?? members.length, 4);
  end.writeUInt16LE(options.entries ?? members.length, 6);
  end.writeUInt32LE(position - directoryOffset, 8);
  end.writeUInt32LE(directoryOffset, 12);
  end.writeUInt16LE(Buffer.byteLength(options.comment ?? ""), 16);
  push(Buffer.concat([Buffer.from("PK\u0005\u0006"), end, Buffer.from(options.comment ?? "")]));
  return Buffer.concat([options.prefix ?? new Uint8Array(), ...parts]);
}

function uint16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
}
