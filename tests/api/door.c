/* The C ABI from C: each line of standard input is a request; its reply goes out after a line with its status and its size. */
#include <dryfit/dryfit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#endif

int main(void) {
  static char line[1 << 20];
#ifdef _WIN32 /* bytes as they are */
  _setmode(_fileno(stdin), _O_BINARY);
  _setmode(_fileno(stdout), _O_BINARY);
#endif
  while (fgets(line, sizeof line, stdin) != NULL) {
    int status = -1;
    char* reply = dryfit_call(line, strlen(line), &status);
    if (reply == NULL) return 70;
    printf("%d %zu\n%s", status, strlen(reply), reply);
    dryfit_free(reply);
  }
  fflush(stdout);
  return strlen(dryfit_version()) > 0 ? 0 : 70;
}
