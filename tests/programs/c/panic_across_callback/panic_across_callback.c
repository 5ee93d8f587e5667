#include <dirent.h>
#include <stdio.h>
#include "_cgo_export.h"

void callBack(int n)
{
    volatile char frame[256] = { 1 };
    goPanic(n);
    frame[0] = 2;
}

long threads(void)
{
    long n = 0;
    DIR *tasks = opendir("/proc/self/task");
    while (readdir(tasks))
        n++;
    closedir(tasks);
    return n - 2;
}

long residentKilobytes(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return 0; /* freed memory is kept for a while, and more is written down about all of it */
#endif
    long total = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (fscanf(f, "%ld %ld", &total, &resident) != 2)
        resident = -1;
    fclose(f);
    return resident * 4;
}
