// The one function of Windows that Rust's standard library wants and that older wines lack. Built
// and installed by tests/windows.
#include <windows.h>
#include <ntsecapi.h>

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T bytes) {
    return RtlGenRandom(data, bytes);
}
