import { describe, expect, test } from "bun:test";
import { crypt, effectiveSalt } from "../../../src/base/crypt.ts";

describe("crypt", () => {
  test.each([
    [
      "6",
      "hamburger",
      "$6$abcdefghij$ePjbdDu7efLtXvaw1MSv2oIHjsAxuzHwL2PSdkaMcdDgQZJCfqpVAMx4OO/ohfAPZ.6E4yy4qlitnSX9/ibmU.",
    ],
    ["5", "hamburger", "$5$abcdefghij$REYOSwoaFcW7TbUoIFY.j2mBB4etrLQg6FnUfjjwQ.B"],
    ["1", "hamburger", "$1$abcdefgh$xCruzhcTYMefJcWSHmxrB0"],
    [
      "6",
      "café",
      "$6$abcdefghij$sn/6VgNoEyKBaWffrliWvUOxnDttMpPyWLX.px6EeuGo3iWDgoPh9w7GyeE.W5GntkDHhJBpmuDgOSjycxJd1.",
    ],
    [
      "6",
      "김치",
      "$6$abcdefghij$u9MKneUnX9S45eTt4ktgYahmkunftcxQNiTpnteCsfZX7X7H7Ky6hkofWxN9J.LQ6KzLXtyxks/F1EWnU5/.6/",
    ],
  ] as const)("provisioning.md USER-14: method %s, password %s", (id, password, expected) => {
    expect(crypt(id, password, "abcdefghij")).toBe(expected);
  });

  test("provisioning.md USER-11: the salt is cut to 16 characters, to 8 for MD5, and there is no rounds= part", () => {
    const salt = "0123456789abcdefXYZ";
    expect(effectiveSalt("6", salt)).toBe("0123456789abcdef");
    expect(effectiveSalt("1", salt)).toBe("01234567");
    expect(crypt("6", "x", salt)).toStartWith("$6$0123456789abcdef$");
    expect(crypt("5", "x", salt)).toStartWith("$5$0123456789abcdef$");
    expect(crypt("1", "x", salt)).toStartWith("$1$01234567$");
  });

  test("passwords around the block size hash as openssl does", () => {
    // Recorded from `openssl passwd -6 -salt saltsalt` for 63, 64 and 65 bytes.
    const hashes = [63, 64, 65].map((length) =>
      crypt("6", `${"a".repeat(length - 1)}b`, "saltsalt"),
    );
    expect(hashes).toEqual(EXPECTED);
  });
});

const EXPECTED = [
  "$6$saltsalt$wiyQsphxJIm1wNSasNNNzLU1yUS1.I3S5zhIquDJn9PPCXig16gRVB.QQTjQrrx0iURaAR2z96B7IC4XDghVV/",
  "$6$saltsalt$cPkGLU7fyVRy.ouY4pDHREbmaz2kq2ruPZ94IOoVXfX0.SNGdOGl7tjyNJPpOHYc6Q5RBsq93Qzp8RqYFguBY.",
  "$6$saltsalt$nqqxBWjbsLI47WqwH/tviw1tVFdMDkOsM0ygLvQkBDWTCP0jUjjWQTevliFrBe/ZnZMq3l1N11DH./w6LD9XT.",
];
