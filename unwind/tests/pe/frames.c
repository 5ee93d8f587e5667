/* Frames of many forms: large ones, dynamic ones, with vector registers, and tail calls. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

__declspec(dllexport) int sink(void *p);
int (*hook)(void *);
int sink(void *p) { return hook ? hook(p) : 0; }

__declspec(dllexport) int large(int n) { volatile char b[9000]; b[n] = 1; return sink((void *)b) + b[3]; }

__declspec(dllexport) int dynamic(int n) { char *p = __builtin_alloca(n); memset(p, 1, n); return sink(p) + p[n / 2]; }

__declspec(dllexport) double vectors(double *x, int n) {
  double a = x[0], b = x[1], c = x[2], d = x[3], e = x[4], f = x[5], g = x[6], h = x[7];
  for (int i = 0; i < n; i++) {
    a += b * sink(x); b -= c * a; c += d; d *= e; e += f; f -= g; g += h; h *= a;
  }
  return a + b + c + d + e + f + g + h;
}

__declspec(dllexport) long registers(long *x, long n) {
  long a = x[0], b = x[1], c = x[2], d = x[3], e = x[4], f = x[5], g = x[6], h = x[7];
  while (n--) { a += sink(x); b ^= a; c += b; d ^= c; e += d; f ^= e; g += f; h ^= g; }
  return a + b + c + d + e + f + g + h;
}

__declspec(dllexport) int tail(int n, void *p) {
  if (n > 3) { volatile char b[40]; b[n] = sink(p); return b[2]; }
  if (n < 0) return sink((char *)p + sink(p));
  return tail(n + 1, p);
}

__declspec(dllexport) int varied(int n, ...) {
  va_list list; va_start(list, n); int sum = 0;
  for (int i = 0; i < n; i++) switch (va_arg(list, int)) {
    case 1: sum += 3; break; case 2: sum *= sink(&sum); break; case 3: return sum;
    case 4: sum ^= 5; break; case 5: abort(); case 6: sum -= sink(0); break; case 7: sum |= 1; }
  va_end(list); return sum;
}

int main(int argc, char **argv) {
  double x[8] = {1}; long y[8] = {argc};
  return large(argc) + dynamic(argc * 10) + (int)vectors(x, argc) + (int)registers(y, argc)
      + tail(argc, argv) + varied(2, 1, 2);
}
