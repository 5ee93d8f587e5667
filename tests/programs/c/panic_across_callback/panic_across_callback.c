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
    long total = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (fscanf(f, "%ld %ld", &total, &resident) != 2)
        resident = -1;
    fclose(f);
    return resident * 4;
}
