/* The C ABI from C: each line of standard input is a request; its reply goes out after a line with its status and its size. */
#include <dryfit/dryfit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
  char* line = NULL;
  size_t room = 0;
  long n;
  while ((n = (long)getline(&line, &room, stdin)) > 0) {
    int status = -1;
    char* reply = dryfit_call(line, (size_t)n, &status);
    if (reply == NULL) return 70;
    printf("%d %zu\n%s", status, strlen(reply), reply);
    dryfit_free(reply);
  }
  free(line);
  fflush(stdout);
  return strlen(dryfit_version()) > 0 ? 0 : 70;
}
