/* Managed code of the program itself, registered by its section .stackmark_maps. */
#include "managed.h"

static stackmark_runtime *runtime;
static stackmark_goroutine *parked;
static uintptr_t last_result;

static void goroutine_exited(void *user, stackmark_goroutine *goroutine, uintptr_t result) {
    (void)user;
    (void)goroutine;
    last_result = result;
}

static uintptr_t parks(void *goroutine, uintptr_t second) {
    (void)second;
    parked = stackmark_goroutine_retain((stackmark_goroutine *)goroutine);
    return stackmark_park(NULL, NULL);
}

static void ready(void *user, stackmark_goroutine *goroutine) {
    *(stackmark_goroutine **)user = goroutine;
}

int main(void) {
    stackmark_host host = {.size = sizeof host, .goroutine_exited = goroutine_exited};
    stackmark_machine *machine;
    stackmark_image *image, *again, *of_other;
    stackmark_runtime *other;
    stackmark_goroutine *goroutine, *runnable = NULL;
    char name[20];
    int left;
    managed_call_system = stackmark_call_system_address();
    OK(stackmark_runtime_new(NULL, &host, &runtime));
    OK(stackmark_runtime_new(NULL, NULL, &other));
    OK(stackmark_set_scheduler(runtime, ready, &runnable));
    OK(stackmark_register_image(runtime, (uintptr_t)managed_entry, &image));
    CHECK(stackmark_register_image(runtime, (uintptr_t)managed_back, &again) ==
          STACKMARK_BAD_CODE);
    OK(stackmark_register_image(other, (uintptr_t)managed_back, &of_other));
    CHECK(stackmark_function_name(runtime, (uintptr_t)managed_back, name, sizeof name) == 12);
    CHECK(strcmp(name, "managed_back") == 0);
    OK(stackmark_attach(runtime, &machine));
    OK(stackmark_spawn(runtime, STACKMARK_STACK_MOVING, (uintptr_t)managed_entry,
                       (uintptr_t)parks, &goroutine));
    CHECK(stackmark_unregister_image(runtime, image) == STACKMARK_BAD_CODE);
    OK(stackmark_run(machine, goroutine, &goroutine, &left));
    CHECK(left == STACKMARK_LEFT_PARKED);
    CHECK(stackmark_unregister_image(runtime, image) == STACKMARK_BAD_CODE);
    CHECK(strstr(stackmark_error_text(), "goroutine 1 has a frame of managed_entry") != NULL);
    CHECK(stackmark_unregister_image(other, image) == STACKMARK_BAD_CODE);
    OK(stackmark_ready(runtime, parked, 31, 0));
    OK(stackmark_run(machine, runnable, &goroutine, &left));
    CHECK(left == STACKMARK_LEFT_EXITED && last_result == 31);
    OK(stackmark_unregister_image(runtime, image));
    CHECK(stackmark_unregister_image(runtime, image) == STACKMARK_INVALID);
    OK(stackmark_unregister_image(other, of_other));
    OK(stackmark_register_image(runtime, (uintptr_t)managed_entry, &image));
    OK(stackmark_unregister_image(runtime, image));
    OK(stackmark_detach(machine));
    stackmark_runtime_release(other);
    stackmark_runtime_release(runtime);
    puts("image: all checks hold");
    return 0;
}
