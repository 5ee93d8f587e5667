#include "_cgo_export.h"

int returnAfterGrow(void)
{
    goReturnVal();
    return 123456;
}
