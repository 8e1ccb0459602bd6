/** A DHCP answer to a request, made of options (code and value) or single bytes such as pads and the end mark. */
export function answerTo(
  request: Uint8Array,
  options: readonly (number | readonly [number, readonly number[]])[],
): Uint8Array {
  const tail = options.flatMap((option) =>
    typeof option === "number" ? [option] : [option[0], option[1].length, ...option[1]],
  );
  const answer = new Uint8Array(Math.max(0xf0 + tail.length + 1, 0x148));
  answer.set(request.subarray(0, 0xf0));
  answer[0] = 2;
  answer.set([...tail, 255], 0xf0);
  return answer;
}
