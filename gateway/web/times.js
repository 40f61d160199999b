// Times on the wire are microseconds since the epoch, of the market's clock. Everything is shown in UTC.

const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const two = (number) => String(number).padStart(2, "0");
const date = (us) => new Date(us / 1000);

/** 14:05:09 */
export const clock = (us) => `${hour(us)}:${two(date(us).getUTCSeconds())}`;

/** 14:05 */
export const hour = (us) => `${two(date(us).getUTCHours())}:${two(date(us).getUTCMinutes())}`;

/** Sun 22 Nov */
export const day = (us) => `${DAYS[date(us).getUTCDay()]} ${date(us).getUTCDate()} ${MONTHS[date(us).getUTCMonth()]}`;

/** Sun 22 Nov 14:05 */
export const moment = (us) => `${day(us)} ${hour(us)}`;

/** 14:00–15:00 */
export const span = (startUs, hours) => `${hour(startUs)}–${hour(startUs + hours * 3600e6)}`;

/** How long from now: 2 d 3 h, 3 h 05 min, 4:09 */
export function until(us, nowUs) {
  const seconds = Math.max(0, Math.floor((us - nowUs) / 1e6));
  if (seconds >= 86400) return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
  if (seconds >= 3600) return `${Math.floor(seconds / 3600)} h ${two(Math.floor((seconds % 3600) / 60))} min`;
  return `${Math.floor(seconds / 60)}:${two(seconds % 60)}`;
}
