#include "_cgo_export.h"

int returnAfterGrowFromGo(void)
{
    return goReturnVal();
}
