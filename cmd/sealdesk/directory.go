package main

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/directoryservice"
	"github.com/spf13/cobra"

	"github.com/sealdesk/sealdesk/internal/wire/dsdata"
	dsclient "github.com/sealdesk/sealdesk/internal/wire/dsdata/client"
)

// directoryCommand wraps the Directory Service Data API, which older versions of
// the AWS CLI do not have.
func directoryCommand() *cobra.Command {
	var cl client
	c := &cobra.Command{Use: "directory", Short: "Manage the users of a directory (Directory Service Data API)"}
	cl.flags(c)

	var given, surname, email string
	var password bool
	create := &cobra.Command{
		Use:   "create-user DIRECTORY USER",
		Short: "Create a user; with --password-stdin set its password too",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := cl.config(cmd.Context())
			if err != nil {
				return err
			}
			in := &dsdata.CreateUserInput{DirectoryId: &args[0], SAMAccountName: &args[1], GivenName: opt(given), Surname: opt(surname), EmailAddress: opt(email)}
			out, err := dsclient.NewFromConfig(cfg).CreateUser(cmd.Context(), in)
			if err != nil {
				return err
			}
			if password {
				line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
				if err != nil && line == "" {
					return fmt.Errorf("read the password from standard input: %w", err)
				}
				_, err = directoryservice.NewFromConfig(cfg).ResetUserPassword(cmd.Context(), &directoryservice.ResetUserPasswordInput{
					DirectoryId: &args[0], UserName: &args[1], NewPassword: aws.String(strings.TrimRight(line, "\r\n"))})
				if err != nil {
					return fmt.Errorf("the user was created, its password was not set: %w", err)
				}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s\t%s\n", aws.ToString(out.SAMAccountName), aws.ToString(out.SID))
			return nil
		},
	}
	create.Flags().StringVar(&given, "given-name", "", "first name")
	create.Flags().StringVar(&surname, "surname", "", "last name")
	create.Flags().StringVar(&email, "email", "", "e-mail address")
	create.Flags().BoolVar(&password, "password-stdin", false, "read the user's password from standard input")

	describe := &cobra.Command{
		Use: "describe-user DIRECTORY USER", Short: "Show a user", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := cl.config(cmd.Context())
			if err != nil {
				return err
			}
			u, err := dsclient.NewFromConfig(cfg).DescribeUser(cmd.Context(), &dsdata.DescribeUserInput{DirectoryId: &args[0], SAMAccountName: &args[1]})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s\t%s\tenabled=%t\n", aws.ToString(u.SAMAccountName), aws.ToString(u.SID), aws.ToBool(u.Enabled))
			return nil
		},
	}
	list := &cobra.Command{
		Use: "list-users DIRECTORY", Short: "List the users", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := cl.config(cmd.Context())
			if err != nil {
				return err
			}
			in := &dsdata.ListUsersInput{DirectoryId: &args[0]}
			for {
				out, err := dsclient.NewFromConfig(cfg).ListUsers(cmd.Context(), in)
				if err != nil {
					return err
				}
				for _, u := range out.Users {
					fmt.Fprintf(cmd.OutOrStdout(), "%s\t%s\tenabled=%t\n", aws.ToString(u.SAMAccountName), aws.ToString(u.SID), aws.ToBool(u.Enabled))
				}
				if in.NextToken = out.NextToken; in.NextToken == nil {
					return nil
				}
			}
		},
	}
	act := func(use, short string, f func(*dsclient.Client, *cobra.Command, []string) error) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(2), RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := cl.config(cmd.Context())
			if err != nil {
				return err
			}
			return f(dsclient.NewFromConfig(cfg), cmd, args)
		}}
	}
	c.AddCommand(create, describe, list,
		act("disable-user DIRECTORY USER", "Disable a user; running connections are cut", func(d *dsclient.Client, cmd *cobra.Command, a []string) error {
			_, err := d.DisableUser(cmd.Context(), &dsdata.DisableUserInput{DirectoryId: &a[0], SAMAccountName: &a[1]})
			return err
		}),
		act("delete-user DIRECTORY USER", "Delete a user", func(d *dsclient.Client, cmd *cobra.Command, a []string) error {
			_, err := d.DeleteUser(cmd.Context(), &dsdata.DeleteUserInput{DirectoryId: &a[0], SAMAccountName: &a[1]})
			return err
		}))
	return c
}

func opt(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
